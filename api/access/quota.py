"""Quotas of a key."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from sqlalchemy import func, select
from sqlalchemy.orm import Session

from api.http.errors import Invalid, QuotaExceeded, TooLarge, TooMany
from models.records import Job, Key
from models.scheduling.key_limits import limits_of, limits_of_key
from models.scheduling.key_usage import used_bytes
from models.status import JobStatus

QUEUE_FULL_SECONDS = "60"


def jobs_of(session: Session, key_id: str, status: JobStatus) -> int:
    """Number of a key's jobs with a status."""
    mine = Job.key_id == key_id, Job.status == status, Job.deleted_at.is_(None)
    return session.scalar(select(func.count()).select_from(Job).where(*mine)) or 0


@dataclass(frozen=True)
class Room:
    """The largest upload allowed now: `left` bytes of the key's storage, at most `most` bytes."""

    left: int
    most: int

    @property
    def size(self) -> int:
        return min(self.left, self.most)

    def exceeded(self) -> TooLarge:
        """The error for a larger upload."""
        if self.left < self.most:
            left = max(self.left, 0)
            return QuotaExceeded(
                f"Only {left} bytes of this key's storage are left. Delete uploads or jobs to free some."
            )
        return TooLarge(f"The upload is too large. At most {self.most} bytes are allowed.")


def room_for_bytes(session: Session, key_id: str, length: int | None = None) -> Room:
    """The largest upload that a key may send now.

    Raises:
        QuotaExceeded, TooLarge: nothing is left, or less than `length` bytes.
    """
    limits = limits_of_key(session, key_id)
    room = Room(limits.storage_bytes - used_bytes(session, key_id), limits.upload_bytes)
    if room.size <= 0 or (length is not None and length > room.size):
        raise room.exceeded()
    return room


class JobRooms:
    """The limits of keys for further jobs. The keys are locked until the transaction ends, in the order of their ids, so
    that two transactions cannot deadlock."""

    def __init__(self, session: Session, key_ids: Iterable[str]):
        locked = select(Key.id, Key.limits).where(Key.id.in_(sorted(key_ids))).order_by(Key.id)
        rows = session.execute(locked.with_for_update(key_share=True)).all()
        self._limits = {row.id: limits_of(row.limits) for row in rows}
        self._queued = {key_id: jobs_of(session, key_id, JobStatus.QUEUED) for key_id in self._limits}

    def require(self, key_id: str, jobs: int) -> None:
        """Check that a key may queue so many further jobs at once.

        Raises:
            TooMany: the limit of queued jobs would be exceeded.
        """
        most, queued = self._limits[key_id].queued_jobs, self._queued[key_id]
        if queued + jobs > most:
            detail = (
                f"This key may have {most} queued jobs and has {queued}: {jobs} more are too many. Submit fewer, or wait"
                " until some of them have started."
            )
            raise TooMany(detail, headers={"Retry-After": QUEUE_FULL_SECONDS})

    def take(self, key_id: str, resolved: dict[str, Any]) -> None:
        """Check that a key may submit this job, and count it.

        Raises:
            Invalid: the priority or the time limit exceeds the limit of the key.
            TooMany: the limit of queued jobs is reached.
        """
        limits = self._limits[key_id]
        minutes = resolved["training"].get("time_limit_minutes") or 0
        wrong = []
        if resolved["priority"] > limits.highest_priority:
            wrong.append(("/priority", f"must be at most {limits.highest_priority}, the limit of this key"))
        if minutes > limits.job_minutes:
            most = f"must be at most {limits.job_minutes}, the limit of this key"
            wrong.append(("/training/time_limit_minutes", most))
        if wrong:
            raise Invalid(wrong)
        queued = self._queued[key_id]
        if queued >= limits.queued_jobs:
            detail = f"This key has {queued} queued jobs, the most allowed. Wait until one of them starts."
            raise TooMany(detail, headers={"Retry-After": QUEUE_FULL_SECONDS})
        self._queued[key_id] += 1


def running_limit_reason(session: Session, key_id: str) -> str | None:
    """Why a key's next job waits if its limit of running jobs is reached; None otherwise."""
    most = limits_of_key(session, key_id).running_jobs
    if jobs_of(session, key_id, JobStatus.RUNNING) < most:
        return None
    return f"waits for another job of this key to end: at most {most} may run at once"
