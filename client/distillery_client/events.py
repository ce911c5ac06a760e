"""Following a job by server-sent events, or by polling if a proxy blocks them."""

import json
import time
from collections.abc import Iterator
from typing import Any

import httpx
from httpx_sse import EventSource, SSEError

from distillery_client.connection import Connection
from distillery_client.paging import pages

FINAL = frozenset({"succeeded", "failed", "cancelled"})
NO_MORE_EVENTS = 204
MAX_BROKEN_STREAMS = 3
POLL_SECONDS = 1.0
READ_TIMEOUT_SECONDS = 60.0
"""Read timeout of a stream. The service sends a message or a comment more often than this."""


def watch(connection: Connection, identifier: str, after: int) -> Iterator[dict[str, Any]]:
    """Every event with a number above `after`, once and in order, up to the last event of the job.

    Between them, if streams work, messages of type `metrics` hold the newest value of every metric by name.
    """
    try:
        for event in _stream(connection, identifier, after):
            after = event["seq"]
            yield event
            if ends(event):
                return
    except _NoMoreEvents:
        return
    yield from _poll(connection, identifier, after)


class _NoMoreEvents(Exception):
    """The job has ended and has no further events."""


def ends(event: dict[str, Any]) -> bool:
    """Whether an event is the last one of its job."""
    return event["type"] == "status" and (event.get("data") or {}).get("status") in FINAL


def _stream(connection: Connection, identifier: str, after: int) -> Iterator[dict[str, Any]]:
    """Events from streams; a new stream continues where the last one broke. Returns if streams do not work."""
    broken = 0
    while broken < MAX_BROKEN_STREAMS:
        try:
            for event in _one_stream(connection, identifier, after):
                after, broken = event["seq"], 0
                yield event
            broken += 1
        except (SSEError, httpx.HTTPStatusError):
            return
        except httpx.TransportError:
            broken += 1
            time.sleep(POLL_SECONDS)


def _one_stream(connection: Connection, identifier: str, after: int) -> Iterator[dict[str, Any]]:
    headers = {"Accept": "text/event-stream", "Cache-Control": "no-store", "Last-Event-ID": str(after)}
    timeout = httpx.Timeout(30.0, read=READ_TIMEOUT_SECONDS)
    with connection.stream("GET", f"jobs/{identifier}/events", headers=headers, timeout=timeout) as response:
        if response.status_code == NO_MORE_EVENTS:
            raise _NoMoreEvents
        for message in EventSource(response).iter_sse():
            if message.data:
                event = json.loads(message.data)
                if event["seq"] > after or event["type"] == "metrics":
                    yield event


def _poll(connection: Connection, identifier: str, after: int) -> Iterator[dict[str, Any]]:
    while True:
        ended = connection.request("GET", f"jobs/{identifier}").json()["status"] in FINAL
        for event in pages(connection, f"jobs/{identifier}/events", {"after": after}):
            after = event["seq"]
            yield event
            if ends(event):
                return
        if ended:
            return
        time.sleep(POLL_SECONDS)
