"""Long polling until a record has reached a state."""

import time
from collections.abc import Callable, Iterator
from typing import Any

from distillery_client.connection import Connection
from distillery_client.errors import StillWaiting

LONG_POLL_SECONDS = 20
FIRST_PAUSE_SECONDS = 0.2
MAX_PAUSE_SECONDS = 2.0

Record = dict[str, Any]


def until(
    connection: Connection, path: str, finished: Callable[[Record], bool], timeout_seconds: float | None
) -> Record:
    """The record at `path` as soon as `finished` is true for it.

    Raises:
        StillWaiting: it is not true after `timeout_seconds`.
    """
    for record in changes(connection, path, timeout_seconds):
        if finished(record):
            return record
    raise StillWaiting(f"{path} has not finished after {timeout_seconds:g} s. Wait for it again with a longer timeout.")


def changes(connection: Connection, path: str, timeout_seconds: float | None) -> Iterator[Record]:
    """The record now, and after every change; uses `Prefer: wait`, so that the server delays responses until then."""
    deadline = None if timeout_seconds is None else time.monotonic() + timeout_seconds
    tag, pause = "", FIRST_PAUSE_SECONDS
    while deadline is None or time.monotonic() < deadline:
        left = (
            LONG_POLL_SECONDS if deadline is None else min(LONG_POLL_SECONDS, max(1, int(deadline - time.monotonic())))
        )
        headers = {"Prefer": f"wait={left}"} | ({"If-None-Match": tag} if tag else {})
        started = time.monotonic()
        response = connection.request("GET", path, headers=headers if tag else {}, accept=(304,), timeout=left + 15)
        if response.status_code != 304:
            tag, pause = response.headers.get("ETag", ""), FIRST_PAUSE_SECONDS
            yield response.json()
        if time.monotonic() - started < FIRST_PAUSE_SECONDS:  # the server does not support `Prefer: wait`
            time.sleep(pause)
            pause = min(MAX_PAUSE_SECONDS, pause * 1.5)
