"""A load generator for HTTP/1.1: connections that each send the next request when they have read the last answer.

It parses no more than a benchmark needs, so that one core can load a server on another.
"""

import asyncio
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from statistics import median, quantiles

import uvloop

Request = Callable[["Connection"], bytes]
"""Gives the next request of a connection."""


@dataclass
class Load:
    """What came of a load: answers by status, and seconds of each request."""

    seconds: float
    statuses: Counter[int] = field(default_factory=Counter)
    delays: list[float] = field(default_factory=list)

    @property
    def rate(self) -> float:
        """Answers per second."""
        return len(self.delays) / self.seconds

    def milliseconds(self) -> tuple[float, float]:
        """Median and 99th percentile of a request's duration."""
        return median(self.delays) * 1000, quantiles(self.delays, n=100)[98] * 1000


class Connection(asyncio.Protocol):
    """One keep-alive connection. `tag` is the `ETag` of the last answer that had one."""

    def __init__(self, number: int, request: Request, load: Load, until: float):
        self.number = number
        self.sent = 0
        self.tag = b""
        self.closed = asyncio.get_running_loop().create_future()
        self._request = request
        self._load = load
        self._until = until
        self._buffer = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = transport
        self._send()

    def data_received(self, data: bytes) -> None:
        self._buffer += data
        head, found, body = self._buffer.partition(b"\r\n\r\n")
        if not found or len(body) < _length(head):
            return
        now = time.perf_counter()
        self._load.delays.append(now - self._sent_at)
        self._load.statuses[int(head[9:12])] += 1
        if b"\r\netag: " in head:
            self.tag = head.partition(b"\r\netag: ")[2].partition(b"\r\n")[0]
        self._buffer = b""
        if now < self._until:
            self._send()
        else:
            self._transport.close()

    def connection_lost(self, error: Exception | None) -> None:
        if not self.closed.done():
            self.closed.set_exception(error) if error else self.closed.set_result(None)

    def _send(self) -> None:
        self._sent_at = time.perf_counter()
        self._transport.write(self._request(self))  # type: ignore[attr-defined]
        self.sent += 1


def _length(head: bytes) -> int:
    value = head.lower().partition(b"\r\ncontent-length: ")[2].partition(b"\r\n")[0]
    return int(value or 0)


def run(port: int, request: Request, clients: int, seconds: float) -> Load:
    """Load a server on this machine; raises if it closes a connection."""
    return uvloop.run(_run(port, request, clients, seconds))


async def _run(port: int, request: Request, clients: int, seconds: float) -> Load:
    started = time.perf_counter()
    load = Load(seconds)
    loop = asyncio.get_running_loop()
    made = [
        await loop.create_connection(lambda at=at: Connection(at, request, load, started + seconds), "127.0.0.1", port)
        for at in range(clients)
    ]
    await asyncio.gather(*(connection.closed for _, connection in made))
    load.seconds = time.perf_counter() - started
    return load


def get(path: str, key: str = "", tag: bytes = b"") -> bytes:
    """A GET request."""
    lines = [f"GET {path} HTTP/1.1", "Host: 127.0.0.1"] + ([f"Authorization: Bearer {key}"] if key else [])
    head = "\r\n".join(lines).encode()
    return head + (b"\r\nIf-None-Match: " + tag if tag else b"") + b"\r\n\r\n"


def post(path: str, key: str, body: bytes) -> bytes:
    """A POST request with a JSON body."""
    head = (
        f"POST {path} HTTP/1.1\r\nHost: 127.0.0.1\r\nAuthorization: Bearer {key}\r\nContent-Type: application/json\r\n"
    )
    return head.encode() + b"Content-Length: %d\r\n\r\n" % len(body) + body
