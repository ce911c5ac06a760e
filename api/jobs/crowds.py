"""Jobs that many clients poll at the same time: they share reads that are at most `RECENT_SECONDS` old.

A job that fewer clients poll is read for each of them after their request, so a client that polls alone always sees its own
changes. A cancel or a deletion by this process is seen by all at once.
"""

import asyncio
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass

from sqlalchemy.exc import SQLAlchemyError

from api.http.conditional import matches
from api.http.errors import ApiError
from api.http.links import current_base
from api.jobs.shared_reads import SharedReads, Shown

CROWD = 8
"""Clients that must wait for the same job at once before a read of it answers later requests."""
RECENT_SECONDS = 0.25
REFRESH_SECONDS = 0.2
"""Age of a read at which the next one begins, while the old one still answers."""
MOST_JOBS = 1000

Name = tuple[str, str, str]
"""Key, job and base URL: what a body depends on besides the database."""


@dataclass
class Recent:
    """A read that began at `began`; `answered` counts its answers, `changes` is the number of changes before it."""

    shown: Shown
    began: float
    changes: int
    answered: int = 0
    refreshing: bool = False

    def to(self, known: str | None) -> Shown | None:
        """The answer to a request with this `If-None-Match`; None if it needs a body that was not read."""
        if matches(known, self.shown.tag):
            return self.shown._replace(body=None)
        return None if self.shown.body is None else self.shown


class Crowds:
    """The jobs that many clients poll. For use on the event loop, except `changed`."""

    def __init__(self, reads: SharedReads, clock: Callable[[], float] = time.monotonic) -> None:
        self._reads = reads
        self._clock = clock
        self._recent: dict[Name, Recent] = {}
        self._asking: Counter[Name] = Counter()
        self._changes = 0
        self._refreshes: set[asyncio.Task[None]] = set()

    def changed(self) -> None:
        """Do not use any read that began before this call. Thread-safe."""
        self._changes += 1

    async def read(self, key_id: str, job_id: str, known: str | None) -> Shown:
        """A job; without its body if `known` (an `If-None-Match`) contains its tag.

        Raises:
            NotFound: the job does not exist or belongs to another key.
        """
        name = key_id, job_id, current_base()
        recent = self._recent.get(name)
        if recent is not None:
            age = self._clock() - recent.began
            if age >= RECENT_SECONDS or recent.changes != self._changes:
                del self._recent[name]
            elif (shown := recent.to(known)) is not None:
                recent.answered += 1
                if age >= REFRESH_SECONDS and not recent.refreshing:
                    recent.refreshing = True
                    self._start_refresh(name, recent)
                return shown
        return await self._ask(name, known)

    async def _ask(self, name: Name, known: str | None) -> Shown:
        self._asking[name] += 1
        try:
            began, changes = self._clock(), self._changes
            shown = await self._reads.read(name[0], name[1], known)
            if self._asking[name] >= CROWD:
                self._keep(name, Recent(shown, began, changes))
            return shown
        finally:
            self._asking[name] -= 1
            if not self._asking[name]:
                del self._asking[name]

    def _start_refresh(self, name: Name, recent: Recent) -> None:
        task = asyncio.create_task(self._refresh(name, recent))
        self._refreshes.add(task)
        task.add_done_callback(self._refreshes.discard)

    async def _refresh(self, name: Name, recent: Recent) -> None:
        """Read a job again, if clients still crowd around it."""
        began, changes = self._clock(), self._changes
        try:
            shown = await self._reads.read(name[0], name[1], recent.shown.tag)
        except (ApiError, SQLAlchemyError):  # the next request meets it
            return
        if recent.answered >= CROWD:
            self._keep(name, Recent(shown, began, changes))

    def _keep(self, name: Name, newer: Recent) -> None:
        older = self._recent.pop(name, None)
        if older is not None and older.began > newer.began:
            newer = older
        elif older is not None and newer.shown.body is None and older.shown.tag == newer.shown.tag:
            newer.shown = newer.shown._replace(body=older.shown.body)
        self._recent[name] = newer
        if len(self._recent) > MOST_JOBS:
            del self._recent[next(iter(self._recent))]
