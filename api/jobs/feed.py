"""What happens to a job, read once for all who follow it in this process.

A feed reads a job's new events and figures when its row has changed, and keeps the newest as they are sent. Who is
behind what is kept reads pages from the database until they are not: nobody's slowness costs memory here.
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

from api.http.bodies import Shown
from api.http.links import current_base
from api.http.row_watch import RowWatch, Token, token_of
from api.jobs.newest_metrics import newest_figures
from api.jobs.outputs import event_shown
from api.jobs.schemas import EventBody, Figure
from models.database import reading
from models.records import Event, Job
from models.status import JobStatus

BATCH = 200
KEPT_MESSAGES, KEPT_BYTES = 1000, 2**20
LOOK_SECONDS = 30.0
"""A feed looks at its job so often, even where nobody tells it of a change."""
PAUSE_SECONDS = 1.0
STREAMS = Gauge("distillery_event_streams", "Event streams that are open.")
log = structlog.get_logger("api")


class Message(NamedTuple):
    """An event as it is sent; `seq` is its number."""

    seq: int
    text: bytes


class Figures(Shown):
    """The newest value of every metric; `seq` is the number of the newest event before it."""

    seq: int
    type: Literal["metrics"] = "metrics"
    data: dict[str, Figure]


class News(NamedTuple):
    """What a look at a job found; `token` is None if the job is gone."""

    token: Token | None
    final: bool
    messages: list[Message]
    newest_seq: int
    figures: dict[str, Figure]


class Feed:
    """One job's newest messages. `seq` is the number of the newest (None before the first look), `over` is set when
    nothing more will come; `changed` is set, and replaced, at every news."""

    def __init__(self, watch: RowWatch, job_id: str):
        self.job_id = job_id
        self.seq: int | None = None
        self.figures, self.figures_number = b"", 0
        self.over = False
        self.changed = asyncio.Event()
        self.listeners = 0
        self._watch = watch
        self._known: dict[str, Figure] = {}
        self._kept: deque[Message] = deque()
        self._kept_bytes = 0
        self._task = asyncio.create_task(self._run())

    def after(self, seq: int) -> list[Message] | None:
        """The messages with a number above `seq`; None if some of them are not kept any more."""
        if self.seq is not None and seq >= self.seq:
            return []
        if not self._kept or seq < self._kept[0].seq - 1:
            return None
        return list(takewhile(lambda message: message.seq > seq, reversed(self._kept)))[::-1]

    def close(self) -> None:
        """Look no more."""
        self._task.cancel()

    async def _run(self) -> None:
        structlog.contextvars.clear_contextvars()
        try:
            while not self._watch.closing and await self._go_on():
                pass
        finally:
            self.over = True
            self._tell()

    async def _go_on(self) -> bool:
        """Look once, and wait for a change if there was nothing more; false after the last look."""
        try:
            news = await run_in_threadpool(look, self.job_id, self.seq)
        except SQLAlchemyError as error:  # those who follow go on waiting
            log.warning("feed_failed", job=self.job_id, error=type(error).__name__)
            await asyncio.sleep(PAUSE_SECONDS)
            return True
        self._take(news)
        if news.token is None or (news.final and not news.messages):
            return False
        self._tell()
        if len(news.messages) < BATCH and not news.final:
            await self._watch.changed(Job, self.job_id, news.token, LOOK_SECONDS)
        return True

    def _take(self, news: News) -> None:
        self._kept.extend(news.messages)
        self._kept_bytes += sum(len(message.text) for message in news.messages)
        while len(self._kept) > KEPT_MESSAGES or (self._kept_bytes > KEPT_BYTES and len(self._kept) > 1):
            self._kept_bytes -= len(self._kept.popleft().text)
        self.seq = news.newest_seq
        if news.figures != self._known:
            self._known = news.figures
            body = Figures(seq=self.seq, data=news.figures).model_dump_json()
            self.figures, self.figures_number = (
                format_sse_event(data_str=body, event="metrics"),
                self.figures_number + 1,
            )

    def _tell(self) -> None:
        self.changed.set()
        self.changed = asyncio.Event()


class Feeds:
    """The feeds of a process."""

    def __init__(self, watch: RowWatch):
        self._watch = watch
        self._feeds: dict[tuple[str, str], Feed] = {}

    @contextmanager
    def joined(self, job_id: str) -> Iterator[Feed]:
        """The feed of a job, for as long as somebody follows it. Links are as the client reaches them."""
        name = job_id, current_base()
        feed = self._feeds.get(name)
        if feed is None or feed.over:
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


def look(job_id: str, after: int | None) -> News:
    """What is new of a job since its event `after`; the first look (None) leaves the past to who wants it."""
    with reading() as session:
        job = session.scalar(select(Job).where(Job.id == job_id, Job.deleted_at.is_(None)))
        if job is None:
            return News(None, True, [], after or 0, {})
        token, final = token_of(job), JobStatus(job.status).final
        if after is None:
            return News(token, final, [], job.event_seq, newest_figures(session, job_id))
        query = select(Event).where(Event.job_id == job_id, Event.seq > after).order_by(Event.seq).limit(BATCH)
        messages = [message_of(event_shown(row)) for row in session.scalars(query)]
        newest = messages[-1].seq if messages else after
        return News(token, final, messages, newest, newest_figures(session, job_id))


def message_of(event: EventBody) -> Message:
    """An event as it is sent."""
    text = format_sse_event(data_str=event.model_dump_json(), event=event.type, id=str(event.seq))
    return Message(event.seq, text)
