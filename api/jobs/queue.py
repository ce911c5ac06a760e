"""What a queued job's body says of the queue: its position, and why it waits."""

from functools import cache
from itertools import islice
from typing import Protocol

from sqlalchemy.orm import Session

from api.access import quota
from api.health.workers import missing_worker
from models.records import Job
from models.scheduling.resources import ResourceNeeds
from models.scheduling.turns import turns
from models.status import JobStatus

MAX_POSITION = 100
"""Largest queue position that is reported; later jobs have none."""


class Waiting(Protocol):
    """The columns of a job on which its place in the queue depends."""

    @property
    def id(self) -> str: ...
    @property
    def key_id(self) -> str: ...
    @property
    def status(self) -> str: ...
    @property
    def ready(self) -> bool: ...
    @property
    def reason(self) -> str | None: ...
    @property
    def needs(self) -> str: ...


class Queue:
    """The queue as one session sees it. What several jobs have in common is read once for all of them."""

    def __init__(self, session: Session):
        self._order = enumerate(islice(turns(session, Job), MAX_POSITION), start=1)
        self._positions: dict[str, int] = {}
        self._missing = cache(lambda kind, needs: missing_worker(session, kind, needs and ResourceNeeds.read(needs)))
        self._limit = cache(lambda key_id: quota.running_limit_reason(session, key_id))

    def position(self, job: Waiting) -> int | None:
        """The position of a job, 1 for the next one."""
        if job.status != JobStatus.QUEUED or not job.ready:
            return None
        while job.id not in self._positions and (following := next(self._order, None)) is not None:
            self._positions[following[1].id] = following[0]
        return self._positions.get(job.id)

    def reason(self, job: Waiting) -> str | None:
        """Why a job waits, or why it was queued again."""
        if job.status != JobStatus.QUEUED:
            return job.reason
        if not job.ready:
            return "; ".join(filter(None, (job.reason, self._missing("inspect", None))))
        missing = self._missing("distill", job.needs)
        return "; ".join(filter(None, (job.reason, missing or self._limit(job.key_id)))) or None
