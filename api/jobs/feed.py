"""Feeds of events and metrics: each job is read once for all event streams that follow it in this process.

A feed buffers the newest messages of a job. A stream that has fallen behind the buffer reads pages from the database until it
has caught up, so slow clients use no memory here.
"""

import asyncio
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from itertools import takewhile
from typing import Literal

import structlog
from fastapi.concurrency import run_in_threadpool
from fastapi.sse import format_sse_event
from prometheus_client import Gauge
from sqlalchemy.exc import SQLAlchemyError

from api.http.bodies import ResponseBody
from api.http.links import current_base
from api.jobs.feed_reads import BATCH, Followed, Message, Update, read_updates
from api.jobs.schemas import MetricValue

BUFFER_MESSAGES, BUFFER_BYTES = 1000, 2**20
BEAT_SECONDS = 0.25
"""Time between two reads for clients of the API."""
PAUSE_SECONDS = 1.0
"""Further time after a read that the database refused."""
STREAMS = Gauge("distillery_event_streams", "Open event streams.")
log = structlog.get_logger("api")


class MetricsMessage(ResponseBody):
    """The newest value of every metric; `seq` is the number of the newest event before it."""

    seq: int
    type: Literal["metrics"] = "metrics"
    data: dict[str, MetricValue]


class Feed:
    """The newest messages of one job.

    `known` is what was read of it. `metrics` is the encoded metrics message and `metrics_version` counts its changes. `ended`
    is set when no more messages will come. `changed` is set and replaced at every update.
    """

    def __init__(self, job_id: str, base: str):
        self.known = Followed(job_id, base)
        self.metrics = b""
        self.metrics_version = 0
        self.ended = False
        self.changed = asyncio.Event()
        self.listeners = 0
        self._values: dict[str, MetricValue] = {}
        self._buffer: deque[Message] = deque()
        self._buffer_bytes = 0

    @property
    def seq(self) -> int | None:
        """The number of the newest event; None before the first read."""
        return self.known.seq

    def after(self, seq: int) -> list[Message] | None:
        """The messages with a number above `seq`; None if some of them are no longer in the buffer."""
        if self.seq is not None and seq >= self.seq:
            return []
        if not self._buffer or seq < self._buffer[0].seq - 1:
            return None
        return list(takewhile(lambda message: message.seq > seq, reversed(self._buffer)))[::-1]

    def take(self, update: Update) -> bool:
        """Add what was read; returns whether there may be more to read at once."""
        if update.version is None:
            self.end()
            return False
        self._buffer.extend(update.messages)
        self._buffer_bytes += sum(len(message.text) for message in update.messages)
        while len(self._buffer) > BUFFER_MESSAGES or (self._buffer_bytes > BUFFER_BYTES and len(self._buffer) > 1):
            self._buffer_bytes -= len(self._buffer.popleft().text)
        self.known = self.known._replace(version=update.version, seq=update.newest_seq)
        if update.metrics != self._values:
            self._values = update.metrics
            body = MetricsMessage(seq=update.newest_seq, data=update.metrics).model_dump_json()
            self.metrics = format_sse_event(data_str=body, event="metrics")
            self.metrics_version += 1
        more = len(update.messages) == BATCH
        self.ended = update.final and not more
        self._notify()
        return more

    def end(self) -> None:
        """Say that no more messages will come."""
        self.ended = True
        self._notify()

    def _notify(self) -> None:
        self.changed.set()
        self.changed = asyncio.Event()


class Beat:
    """Reads the jobs of its feeds together, every `seconds` seconds, and at once if a feed is new or has more to read."""

    def __init__(self, seconds: float):
        self._seconds = seconds
        self._feeds: set[Feed] = set()
        self._soon = asyncio.Event()
        self._task: asyncio.Task[None] | None = None

    def add(self, feed: Feed) -> None:
        """Read the job of a feed from now on."""
        self._feeds.add(feed)
        self._soon.set()
        if self._task is None or self._task.done():
            self._task = asyncio.create_task(self._run())

    def remove(self, feed: Feed) -> None:
        """Stop reading the job of a feed."""
        self._feeds.discard(feed)

    def end(self) -> None:
        """End all feeds."""
        while self._feeds:
            self._feeds.pop().end()
        self._soon.set()

    async def _run(self) -> None:
        structlog.contextvars.clear_contextvars()  # of the request that came first
        try:
            while self._feeds:
                self._soon.clear()
                await self._read(list(self._feeds))
                with suppress(TimeoutError):
                    await asyncio.wait_for(self._soon.wait(), self._seconds)
        finally:
            self.end()

    async def _read(self, feeds: list[Feed]) -> None:
        try:
            updates = await run_in_threadpool(read_updates, [feed.known for feed in feeds])
        except SQLAlchemyError as error:  # the streams stay open
            log.warning("feeds_failed", error=type(error).__name__)
            await asyncio.sleep(PAUSE_SECONDS)
            return
        for feed, update in zip(feeds, updates, strict=True):
            if update is not None and not feed.ended and feed.take(update):
                self._soon.set()
            if feed.ended:
                self.remove(feed)


class Feeds:
    """The feeds of this process."""

    def __init__(self) -> None:
        self._beats: dict[float, Beat] = {}
        self._feeds: dict[tuple[str, str, float], Feed] = {}
        self._closing = False

    @contextmanager
    def joined(self, job_id: str, seconds: float = BEAT_SECONDS) -> Iterator[Feed]:
        """The feed of a job that is read every `seconds` seconds; it is closed when its last stream ends. Clients with different
        base URLs get different feeds."""
        name = job_id, current_base(), seconds
        feed, beat = self._feeds.get(name), self._beats.setdefault(seconds, Beat(seconds))
        if feed is None or feed.ended:
            feed = self._feeds[name] = Feed(job_id, current_base())
            if self._closing:
                feed.end()
            else:
                beat.add(feed)
        feed.listeners += 1
        STREAMS.inc()
        try:
            yield feed
        finally:
            STREAMS.dec()
            feed.listeners -= 1
            if not feed.listeners:
                beat.remove(feed)
                if self._feeds.get(name) is feed:
                    del self._feeds[name]

    def close(self) -> None:
        """End all streams, and later ones at once."""
        self._closing = True
        for beat in self._beats.values():
            beat.end()
