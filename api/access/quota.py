"""What a key uses, and how much more it may."""

from dataclasses import dataclass
from typing import Any

from sqlalchemy import BigInteger, case, cast, func, select
from sqlalchemy.orm import Session

from api.http.errors import Invalid, QuotaExceeded, TooLarge, TooMany
from models.records import Artifact, Dataset, File, Job, Key, Preview, Teacher
from models.scheduling.key_limits import limits_of_key
from models.status import JobStatus, UploadStatus

FULL_SECONDS = "60"


def used_bytes(session: Session, key_id: str) -> int:
    """Bytes that a key's uploads and the results of its jobs take up."""
    total = 0
    for record in (Teacher, Dataset, File):
        size = case(
            (record.status == UploadStatus.READY, func.coalesce(record.blob_size, record.size)),
            (record.status == UploadStatus.INSPECTING, record.size),
            else_=0,
        )
        query = select(cast(func.coalesce(func.sum(size), 0), BigInteger))
        total += session.scalar(query.where(record.key_id == key_id, record.deleted_at.is_(None))) or 0
    for result in (Artifact, Preview):
        sums = select(cast(func.coalesce(func.sum(result.size), 0), BigInteger)).join(Job, Job.id == result.job_id)
        total += session.scalar(sums.where(Job.key_id == key_id, Job.deleted_at.is_(None))) or 0
    return total


def jobs_of(session: Session, key_id: str, status: JobStatus) -> int:
    """How many jobs of a key are in a state."""
    mine = Job.key_id == key_id, Job.status == status, Job.deleted_at.is_(None)
    return session.scalar(select(func.count()).select_from(Job).where(*mine)) or 0


def lock(session: Session, key_id: str) -> None:
    """Let whoever counts what a key uses, in order to add to it, do so one after the other."""
    session.execute(select(Key.id).where(Key.id == key_id).with_for_update(key_share=True))


@dataclass(frozen=True)
class Room:
    """How many bytes an upload may have: `left` of the key's storage, and never more than `most`."""

    left: int
    most: int

    @property
    def size(self) -> int:
        return min(self.left, self.most)

    def exceeded(self) -> TooLarge:
        """The error for more bytes."""
        if self.left < self.most:
            return QuotaExceeded(f"This key may store {max(self.left, 0)} more bytes: delete what you no longer need.")
        return TooLarge(f"An upload may have {self.most} bytes.")


def room_for_bytes(session: Session, key_id: str, length: int | None = None) -> Room:
    """The room for an upload.

    Raises:
        QuotaExceeded, TooLarge: there is none, or less than is announced.
    """
    limits = limits_of_key(session, key_id)
    room = Room(limits.storage_bytes - used_bytes(session, key_id), limits.upload_bytes)
    if room.size <= 0 or (length is not None and length > room.size):
        raise room.exceeded()
    return room


def require_room_for_job(session: Session, key_id: str, resolved: dict[str, Any]) -> None:
    """Hold the key until the transaction ends, and see that it may have one more job like this.

    Raises:
        Invalid: its priority or its length is more than the key's jobs may have.
        TooMany: as many jobs wait as may.
    """
    lock(session, key_id)
    limits = limits_of_key(session, key_id)
    minutes = resolved["training"].get("time_limit_minutes") or 0
    wrong = []
    if resolved["priority"] > limits.highest_priority:
        wrong.append(("/priority", f"must be at most {limits.highest_priority} with this key"))
    if minutes > limits.job_minutes:
        wrong.append(("/training/time_limit_minutes", f"must be at most {limits.job_minutes} with this key"))
    if wrong:
        raise Invalid(wrong)
    queued = jobs_of(session, key_id, JobStatus.QUEUED)
    if queued >= limits.queued_jobs:
        detail = f"{queued} jobs of this key are queued, as many as may be: wait for some to begin."
        raise TooMany(detail, headers={"Retry-After": FULL_SECONDS})


def holds_back(session: Session, job: Job) -> str | None:
    """A sentence if a job waits because its key runs as many as it may."""
    most = limits_of_key(session, job.key_id).running_jobs
    if jobs_of(session, job.key_id, JobStatus.RUNNING) < most:
        return None
    return f"waits for the end of a job: this key may run {most} at once"
