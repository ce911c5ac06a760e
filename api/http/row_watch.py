"""Waiting for rows to change: one poller per process wakes all waiting requests."""

import asyncio
from collections import defaultdict
from collections.abc import Iterable
from typing import Any, cast

import structlog
from sqlalchemy import func, select
from sqlalchemy.exc import SQLAlchemyError

from models.database import reading
from models.records import Dataset, Experiment, File, Inspection, Job, Teacher

Watched = type[Job] | type[Teacher] | type[Dataset] | type[File] | type[Inspection] | type[Experiment]
Token = tuple[Any, ...]
"""Columns of a row that are compared. They differ whenever a reader can see a change."""

log = structlog.get_logger("api")


def token_of(record: Job | Teacher | Dataset | File | Inspection) -> Token:
    """The token of a row."""
    return (record.version, record.event_seq) if isinstance(record, Job) else (record.status,)


class RowWatch:
    """Wakes the requests that wait for a row, at most `poll_seconds` after the row has changed."""

    def __init__(self, poll_seconds: float = 0.25):
        self._poll_seconds = poll_seconds
        self._waiting: dict[tuple[Watched, str], dict[asyncio.Future[None], Token]] = defaultdict(dict)
        self._poller: asyncio.Task[None] | None = None
        self.closing = False

    async def changed(self, record: Watched, identifier: str, seen: Token, seconds: float) -> None:
        """Return when the row's token is no longer `seen`, after `seconds`, or when the process shuts down."""
        if self.closing or seconds <= 0:
            return
        row = (record, identifier)
        future = asyncio.get_running_loop().create_future()
        self._waiting[row][future] = seen
        if self._poller is None or self._poller.done():
            self._poller = asyncio.create_task(self._poll())
        try:
            async with asyncio.timeout(seconds):
                await future
        except TimeoutError:
            return
        finally:
            del self._waiting[row][future]
            if not self._waiting[row]:
                del self._waiting[row]

    def close(self) -> None:
        """Wake all waiting requests and let later calls of `changed` return at once."""
        self.closing = True
        for waiting in self._waiting.values():
            _wake(waiting)

    async def _poll(self) -> None:
        while self._waiting and not self.closing:
            await asyncio.sleep(self._poll_seconds)
            try:
                tokens = await asyncio.to_thread(_tokens, list(self._waiting))
            except SQLAlchemyError as error:
                log.warning("watch_failed", error=type(error).__name__)  # try again at the next poll
                continue
            for row, waiting in self._waiting.items():
                token = tokens.get(row)
                _wake(future for future, seen in waiting.items() if seen != token)


def _wake(futures: Iterable[asyncio.Future[None]]) -> None:
    for future in futures:
        if not future.done():
            future.set_result(None)


def _tokens(rows: list[tuple[Watched, str]]) -> dict[tuple[Watched, str], Token]:
    tokens: dict[tuple[Watched, str], Token] = {}
    with reading() as session:
        for record in {record for record, _ in rows}:
            ids = [identifier for kind, identifier in rows if kind is record]
            if record is Experiment:  # which changes with its jobs
                jobs = select(Job.experiment_id, func.sum(Job.version)).where(Job.experiment_id.in_(ids))
                found = session.execute(jobs.group_by(Job.experiment_id))
                tokens |= {(record, str(identifier)): (versions,) for identifier, versions in found}
                continue
            columns: tuple[Any, ...] = (
                (Job.version, Job.event_seq) if record is Job else (cast("type[Teacher]", record).status,)
            )
            for start in range(0, len(ids), 500):
                query = select(record.id, *columns).where(record.id.in_(ids[start : start + 500]))
                tokens |= {(record, row[0]): tuple(row[1:]) for row in session.execute(query)}
    return tokens
