"""Following a job: server-sent events where they come through, polling where they do not."""

import json
import time
from collections.abc import Iterator
from typing import Any

import httpx
from httpx_sse import EventSource, SSEError

from distillery_client.connection import Connection
from distillery_client.paging import pages

FINAL = frozenset({"succeeded", "failed", "cancelled"})
NOTHING_MORE = 204
MOST_BROKEN_STREAMS = 3
POLL_SECONDS = 1.0
SILENCE_SECONDS = 60.0
"""A healthy stream says something, if only a comment, more often than this."""


def watch(connection: Connection, identifier: str, after: int) -> Iterator[dict[str, Any]]:
    """Every event with a number above `after`, once and in order, until the one that ends the job; none if that was
    told already.

    Between them, where streams come through, messages of type `metrics` hold the newest figures by name.
    """
    try:
        for event in _stream(connection, identifier, after):
            after = event["seq"]
            yield event
            if ends(event):
                return
    except _Told:
        return
    yield from _poll(connection, identifier, after)


class _Told(Exception):
    """The job has ended, and everything was told."""


def ends(event: dict[str, Any]) -> bool:
    """Whether a job's last event is this one."""
    return event["type"] == "status" and (event.get("data") or {}).get("status") in FINAL


def _stream(connection: Connection, identifier: str, after: int) -> Iterator[dict[str, Any]]:
    """Events from streams, each begun where the one before it broke off; ends when streams do not work here."""
    broken = 0
    while broken < MOST_BROKEN_STREAMS:
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
    timeout = httpx.Timeout(30.0, read=SILENCE_SECONDS)
    with connection.stream("GET", f"jobs/{identifier}/events", headers=headers, timeout=timeout) as response:
        if response.status_code == NOTHING_MORE:
            raise _Told
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
