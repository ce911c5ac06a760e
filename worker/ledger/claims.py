"""Claiming the best due row of a kind, and holding it."""

import time
from dataclasses import dataclass

from sqlalchemy import Select, func, select, update
from sqlalchemy.orm import Session

from models.database import now, reading, transaction
from models.queue import Kind
from models.records import Attempt, Inspection, Job, Worker
from models.records.columns import Leased
from models.settings import settings
from models.status import InspectionStatus, JobStatus
from worker.ledger.changes import Taken, change_job, status_note


@dataclass(frozen=True)
class Claim:
    """One attempt at one row, by one worker. `sent_at` is this host's clock when the claim was sent."""

    record: Job | Inspection
    worker_id: str
    sent_at: float

    @property
    def id(self) -> str:
        return self.record.id

    @property
    def attempt(self) -> int:
        return self.record.attempt


def clock() -> float:
    """Seconds of this host's clock that nobody can set; where there is one, the clock that runs on in a suspend."""
    boot = getattr(time, "CLOCK_BOOTTIME", None)
    return time.monotonic() if boot is None else time.clock_gettime(boot)


def due_jobs() -> Select[str]:
    """Ids of the jobs that a worker may claim, best first."""
    return (
        select(Job.id)
        .where(
            Job.status == JobStatus.QUEUED,
            Job.ready,
            Job.due_at <= now(),
            Job.cancel_requested_at.is_(None),
            Job.deleted_at.is_(None),
        )
        .order_by(Job.priority.desc(), Job.id)
    )


def due_inspections() -> Select[str]:
    """Ids of the inspections that a worker may claim, best first."""
    return (
        select(Inspection.id)
        .where(Inspection.status == InspectionStatus.QUEUED, Inspection.due_at <= now())
        .order_by(Inspection.priority.desc(), Inspection.id)
    )


def claim(kind: Kind, worker_id: str) -> Claim | None:
    """Take the best due row of the kind and raise its attempt; None if nothing is due.

    Postgres skips rows that another worker is just claiming; SQLite has one writer at a time.
    """
    sent_at = clock()
    with transaction() as session:
        record = _claim_job(session, worker_id) if kind == "distill" else _claim_inspection(session, worker_id)
        if record is None:
            return None
        session.execute(update(Worker).where(Worker.id == worker_id).values(busy_with=record.id))
        session.expunge(record)
    return Claim(record, worker_id, sent_at)


def _claim_job(session: Session, worker_id: str) -> Job | None:
    job_id = session.scalar(due_jobs().limit(1).with_for_update(skip_locked=True))
    if job_id is None:
        return None
    number = session.scalars(select(Job.attempt).where(Job.id == job_id)).one() + 1
    changed = change_job(
        session,
        job_id,
        Job.status == JobStatus.QUEUED,
        notes=[status_note(JobStatus.RUNNING, f"attempt {number} has begun", worker=worker_id, attempt=number)],
        status=JobStatus.RUNNING,
        reason=None,
        started_at=func.coalesce(Job.started_at, now()),
        **_lease(Job, worker_id),
    )
    if changed is None:
        return None
    session.add(Attempt(job_id=job_id, number=changed.attempt, worker_id=worker_id))
    session.flush()
    return session.get_one(Job, job_id)


def _claim_inspection(session: Session, worker_id: str) -> Inspection | None:
    inspection_id = session.scalar(due_inspections().limit(1).with_for_update(skip_locked=True))
    if inspection_id is None:
        return None
    session.execute(
        update(Inspection)
        .where(Inspection.id == inspection_id, Inspection.status == InspectionStatus.QUEUED)
        .values(status=InspectionStatus.RUNNING, **_lease(Inspection, worker_id))
    )
    return session.get_one(Inspection, inspection_id)


def _lease(table: type[Leased], worker_id: str) -> dict[str, object]:
    return {
        "attempt": table.attempt + 1,
        "lease_owner": worker_id,
        "lease_expires_at": now() + settings().lease_seconds,
        "rung_at": None,
    }


def renew(held: Claim) -> bool:
    """Renew the lease; says whether the job was asked to be cancelled.

    Raises:
        Taken: the row is no longer this attempt's.
    """
    table = type(held.record)
    with transaction() as session:
        renewed = session.execute(
            update(table)
            .where(table.id == held.id, table.attempt == held.attempt, table.status == "running")
            .values(lease_expires_at=now() + settings().lease_seconds)
            .execution_options(synchronize_session=False)
        )
        if renewed.rowcount == 0:  # type: ignore[attr-defined]  # an UPDATE's result is a CursorResult
            raise Taken(held.id)
        return _cancel_requested(session, held)


def look(held: Claim) -> bool:
    """Whether the job was asked to be cancelled, without renewing the lease.

    Raises:
        Taken: the row is no longer this attempt's.
    """
    table = type(held.record)
    with reading() as session:
        found = session.execute(
            select(table.id).where(table.id == held.id, table.attempt == held.attempt, table.status == "running")
        ).one_or_none()
        if found is None:
            raise Taken(held.id)
        return _cancel_requested(session, held)


def _cancel_requested(session: Session, held: Claim) -> bool:
    job_id = held.id if isinstance(held.record, Job) else held.record.subject_id
    return session.scalar(select(Job.cancel_requested_at).where(Job.id == job_id)) is not None
