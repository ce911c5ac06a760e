"""Quotas of a key."""

from dataclasses import dataclass
from typing import Any

from sqlalchemy import func, select
from sqlalchemy.orm import Session

from api.http.errors import Invalid, QuotaExceeded, TooLarge, TooMany
from models.records import Job
from models.scheduling.key_limits import limits_of_key
from models.scheduling.key_usage import lock, used_bytes
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


def require_room_for_job(session: Session, key_id: str, resolved: dict[str, Any]) -> None:
    """Lock the key until the transaction ends and check that it may submit this job.

    Raises:
        Invalid: the priority or the time limit exceeds the limit of the key.
        TooMany: the limit of queued jobs is reached.
    """
    lock(session, key_id)
    limits = limits_of_key(session, key_id)
    minutes = resolved["training"].get("time_limit_minutes") or 0
    wrong = []
    if resolved["priority"] > limits.highest_priority:
        wrong.append(("/priority", f"must be at most {limits.highest_priority}, the limit of this key"))
    if minutes > limits.job_minutes:
        wrong.append(("/training/time_limit_minutes", f"must be at most {limits.job_minutes}, the limit of this key"))
    if wrong:
        raise Invalid(wrong)
    queued = jobs_of(session, key_id, JobStatus.QUEUED)
    if queued >= limits.queued_jobs:
        detail = f"This key has {queued} queued jobs, the most allowed. Wait until one of them starts."
        raise TooMany(detail, headers={"Retry-After": QUEUE_FULL_SECONDS})


def running_limit_reason(session: Session, key_id: str) -> str | None:
    """Why a key's next job waits if its limit of running jobs is reached; None otherwise."""
    most = limits_of_key(session, key_id).running_jobs
    if jobs_of(session, key_id, JobStatus.RUNNING) < most:
        return None
    return f"waits for another job of this key to end: at most {most} may run at once"
