"""Feeds of events and metrics: each job is read once for all event streams that follow it in this process.

A feed reads new events and metrics of a job when its row has changed, and buffers the newest messages. A stream that has
fallen behind the buffer reads pages from the database until it has caught up, so slow clients use no memory here.
"""

import asyncio
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import takewhile
from typing import Literal, NamedTuple

import structlog
from fastapi.concurrency import run_in_threadpool
from fastapi.sse import format_sse_event
from prometheus_client import Gauge
from sqlalchemy import select
from sqlalchemy.exc import SQLAlchemyError

from api.http.bodies import ResponseBody
from api.http.links import current_base
from api.http.row_watch import RowWatch, Token, token_of
from api.jobs.newest_metrics import newest_metrics
from api.jobs.outputs import event_body
from api.jobs.schemas import EventBody, MetricValue
from models.database import reading
from models.records import Event, Job
from models.status import JobStatus

BATCH = 200
BUFFER_MESSAGES, BUFFER_BYTES = 1000, 2**20
READ_SECONDS = 30.0
"""Longest time between two reads of a job, even without a change."""
PAUSE_SECONDS = 1.0
STREAMS = Gauge("distillery_event_streams", "Open event streams.")
log = structlog.get_logger("api")


class Message(NamedTuple):
    """An encoded server-sent event; `seq` is its number."""

    seq: int
    text: bytes


class MetricsMessage(ResponseBody):
    """The newest value of every metric; `seq` is the number of the newest event before it."""

    seq: int
    type: Literal["metrics"] = "metrics"
    data: dict[str, MetricValue]


class Update(NamedTuple):
    """Result of one read of a job; `token` is None if the job was deleted."""

    token: Token | None
    final: bool
    messages: list[Message]
    newest_seq: int
    metrics: dict[str, MetricValue]


class Feed:
    """The newest messages of one job.

    `seq` is the number of the newest event (None before the first read). `metrics` is the encoded metrics message and
    `metrics_version` counts its changes. `ended` is set when no more messages will come. `changed` is set and replaced
    at every update.
    """

    def __init__(self, watch: RowWatch, job_id: str):
        self.job_id = job_id
        self.seq: int | None = None
        self.metrics = b""
        self.metrics_version = 0
        self.ended = False
        self.changed = asyncio.Event()
        self.listeners = 0
        self._watch = watch
        self._values: dict[str, MetricValue] = {}
        self._buffer: deque[Message] = deque()
        self._buffer_bytes = 0
        self._task = asyncio.create_task(self._run())

    def after(self, seq: int) -> list[Message] | None:
        """The messages with a number above `seq`; None if some of them are no longer in the buffer."""
        if self.seq is not None and seq >= self.seq:
            return []
        if not self._buffer or seq < self._buffer[0].seq - 1:
            return None
        return list(takewhile(lambda message: message.seq > seq, reversed(self._buffer)))[::-1]

    def close(self) -> None:
        """Stop reading the job."""
        self._task.cancel()

    async def _run(self) -> None:
        structlog.contextvars.clear_contextvars()
        try:
            while not self._watch.closing and await self._step():
                pass
        finally:
            self.ended = True
            self._notify()

    async def _step(self) -> bool:
        """Read the job once, and wait for a change if there is nothing more to read; False after the last read."""
        try:
            update = await run_in_threadpool(read_update, self.job_id, self.seq)
        except SQLAlchemyError as error:  # the streams stay open; try again after a pause
            log.warning("feed_failed", job=self.job_id, error=type(error).__name__)
            await asyncio.sleep(PAUSE_SECONDS)
            return True
        self._apply(update)
        if update.token is None or (update.final and not update.messages):
            return False
        self._notify()
        if len(update.messages) < BATCH and not update.final:
            await self._watch.changed(Job, self.job_id, update.token, READ_SECONDS)
        return True

    def _apply(self, update: Update) -> None:
        self._buffer.extend(update.messages)
        self._buffer_bytes += sum(len(message.text) for message in update.messages)
        while len(self._buffer) > BUFFER_MESSAGES or (self._buffer_bytes > BUFFER_BYTES and len(self._buffer) > 1):
            self._buffer_bytes -= len(self._buffer.popleft().text)
        self.seq = update.newest_seq
        if update.metrics != self._values:
            self._values = update.metrics
            body = MetricsMessage(seq=self.seq, data=update.metrics).model_dump_json()
            self.metrics = format_sse_event(data_str=body, event="metrics")
            self.metrics_version += 1

    def _notify(self) -> None:
        self.changed.set()
        self.changed = asyncio.Event()


class Feeds:
    """The feeds of this process."""

    def __init__(self, watch: RowWatch):
        self._watch = watch
        self._feeds: dict[tuple[str, str], Feed] = {}

    @contextmanager
    def joined(self, job_id: str) -> Iterator[Feed]:
        """The feed of a job; it is closed when its last stream ends. Clients with different base URLs get different feeds."""
        name = job_id, current_base()
        feed = self._feeds.get(name)
        if feed is None or feed.ended:
            feed = self._feeds[name] = Feed(self._watch, job_id)
        feed.listeners += 1
        STREAMS.inc()
        try:
            yield feed
        finally:
            STREAMS.dec()
            feed.listeners -= 1
            if not feed.listeners:
                feed.close()
                if self._feeds.get(name) is feed:
                    del self._feeds[name]


def read_update(job_id: str, after: int | None) -> Update:
    """Events of a job after number `after`, and its newest metrics; no events if `after` is None (the first read)."""
    with reading() as session:
        job = session.scalar(select(Job).where(Job.id == job_id, Job.deleted_at.is_(None)))
        if job is None:
            return Update(None, True, [], after or 0, {})
        token, final = token_of(job), JobStatus(job.status).final
        if after is None:
            return Update(token, final, [], job.event_seq, newest_metrics(session, [job_id])[job_id])
        query = select(Event).where(Event.job_id == job_id, Event.seq > after).order_by(Event.seq).limit(BATCH)
        messages = [message_of(event_body(row)) for row in session.scalars(query)]
        newest = messages[-1].seq if messages else after
        return Update(token, final, messages, newest, newest_metrics(session, [job_id])[job_id])


def message_of(event: EventBody) -> Message:
    """An event, encoded as a server-sent event."""
    text = format_sse_event(data_str=event.model_dump_json(), event=event.type, id=str(event.seq))
    return Message(event.seq, text)
