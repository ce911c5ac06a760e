"""The duties of a sweep: expired leases, cancelled jobs, wake-up messages, and the removal of rows and blobs.

Each is a conditional change, so several workers may do it at the same time.
"""

from collections.abc import Sequence
from itertools import islice
from typing import Any

import structlog
from sqlalchemy import delete, literal_column, select, update

from models.database import now, once_now, reading, transaction
from models.queue.wake_up import KINDS, Kind, wake_up
from models.records import (
    Artifact,
    Attempt,
    Checkpoint,
    Event,
    Inspection,
    Job,
    Metric,
    MlflowRun,
    Preview,
    WebhookDelivery,
)
from models.scheduling.resources import Machine, ResourceNeeds, any_fits
from models.scheduling.turns import Line, turns
from models.settings import settings
from models.status import InspectionStatus, JobStatus
from models.storage import keys
from models.storage.opening import storage
from worker.ledger import ends, inspections, waiting
from worker.ledger.presence import idle_workers

AT_ONCE = 100
CHECK_SECONDS = 300.0
"""Age after which a check without a job is removed. The API removes its checks itself long before, unless it
crashes."""
OVERDUE_SECONDS = 2.0
"""Time after the grace period of a cancel after which a sweep cancels the job. Workers notice a cancel within a
second."""
FINAL = tuple(status for status in JobStatus if status.final)
log = structlog.get_logger(__name__)


def take_back_jobs() -> int:
    """Take back jobs whose lease has expired; returns how many."""
    expired = Job.lease_expires_at < now()
    with reading() as session:
        query = select(Job.id, Job.attempt, Job.lease_owner).where(Job.status == JobStatus.RUNNING, expired)
        lost = session.execute(query.limit(AT_ONCE)).all()
    taken_back = 0
    for job_id, attempt, worker_id in lost:
        error = _worker_lost(worker_id)
        with transaction() as session:
            status = ends.lose(session, job_id, attempt, error["message"], error, expired, skip_locked=True)
        if status is not None:
            taken_back += 1
            log.warning("job_taken_back", job=job_id, attempt=attempt, lost_worker=worker_id, status=status)
    return taken_back


def take_back_inspections() -> int:
    """Take back inspections whose lease has expired; returns how many."""
    expired = Inspection.lease_expires_at < now()
    with reading() as session:
        query = select(Inspection.id, Inspection.attempt, Inspection.lease_owner)
        running = Inspection.status == InspectionStatus.RUNNING
        lost = session.execute(query.where(running, expired).limit(AT_ONCE)).all()
    taken_back = 0
    for inspection_id, attempt, worker_id in lost:
        error = _worker_lost(worker_id)
        with transaction() as session:
            status = inspections.lose(session, inspection_id, attempt, error, expired, skip_locked=True)
        if status is not None:
            taken_back += 1
            log.warning("inspection_taken_back", inspection=inspection_id, lost_worker=worker_id, status=status)
    return taken_back


def _worker_lost(worker_id: str | None) -> dict[str, Any]:
    return ends.error("worker_lost", f"the worker {worker_id} was lost")


def cancel_queued() -> None:
    """Cancel the queued jobs for which a cancel was requested."""
    requested = Job.status == literal_column("'queued'"), Job.cancel_requested_at.is_not(None)  # as in the index
    with reading() as session:
        ids = session.scalars(select(Job.id).where(*requested).limit(AT_ONCE)).all()
    for job_id in ids:
        with transaction() as session:
            ends.finish(session, job_id, JobStatus.CANCELLED, "cancelled", *requested)


def cancel_overdue() -> None:
    """Cancel the running jobs whose worker has not done so in time: it is suspended, or has crashed and its lease has
    not expired yet."""
    patience = settings().cancel_grace_seconds + OVERDUE_SECONDS
    overdue = Job.status == JobStatus.RUNNING, Job.cancel_requested_at < now() - patience
    with reading() as session:
        late = session.execute(select(Job.id, Job.attempt).where(*overdue).limit(AT_ONCE)).all()
    for job_id, attempt in late:
        with transaction() as session:
            fence = (*overdue, *ends.held_by(attempt))
            if ends.finish(session, job_id, JobStatus.CANCELLED, "cancelled", *fence):
                ends.end_attempt(session, job_id, attempt, "cancelled", by_holder=False)


def clear_checks() -> None:
    """Remove checks without a job that a crashed API process has left."""
    old = Inspection.kind == "check", Inspection.created_at < now() - CHECK_SECONDS
    with reading() as session:
        ids = session.scalars(select(Inspection.id).where(*old).limit(AT_ONCE)).all()
    if ids:
        with transaction() as session:
            session.execute(delete(Inspection).where(Inspection.id.in_(ids)))


def settle_stuck_jobs() -> None:
    """Settle jobs that still wait although their inputs are inspected, because the worker that inspected them
    crashed."""
    with reading() as session:
        ids = waiting.stuck_jobs(session, AT_ONCE)
    waiting.settle_all(ids)


def wake_idle_workers() -> None:
    """Send a wake-up message for each due row without a recent one, up to the number of idle workers.

    A message has no addressee. If only some of the idle workers meet the needs of the work, all of them are woken up.
    """
    idle = idle_workers()
    for kind in KINDS:
        if idle[kind] and (messages := _mark_sent(kind, idle[kind])):
            wake_up(kind, messages)


def _mark_sent(kind: Kind, idle: Sequence[Machine]) -> int:
    line: Line = Job if kind == "distill" else Inspection
    unsent = (line.woken_at.is_(None)) | (line.woken_at < now() - settings().sweep_seconds)
    with reading() as session:
        found = list(islice(turns(session, line, lambda needs: any_fits(idle, needs), unsent), len(idle)))
    if not found:
        return 0
    with transaction() as session:
        mine = line.id.in_([turn.id for turn in found]), unsent
        marked = session.execute(update(line).where(*mine).values(woken_at=now()).returning(line.needs)).scalars().all()
    some_do_not_fit = any(not machine.fits(ResourceNeeds.read(needs)) for needs in set(marked) for machine in idle)
    return len(idle) if some_do_not_fit else len(marked)


def clear_checkpoints() -> None:
    """Remove the checkpoints of jobs that ended ten lease lengths ago: no attempt can still be uploading."""
    ended = Job.status.in_(FINAL), Job.finished_at < now() - 10 * settings().lease_seconds
    with reading() as session:
        # a subquery for each checkpoint: a join might start from all ended jobs
        query = select(Checkpoint.job_id).where(select(Job.id).where(Job.id == Checkpoint.job_id, *ended).exists())
        ids = session.scalars(query.distinct().limit(AT_ONCE)).all()
    for job_id in ids:
        storage().delete_prefix(keys.checkpoint_parts(job_id))
        with transaction() as session:
            session.execute(delete(Checkpoint).where(Checkpoint.job_id == job_id))


def clear_deleted_jobs() -> None:
    """Remove all blobs and rows of deleted jobs, except the job's own row."""
    # the inner query takes the oldest, the outer one compares their age: for a comparison of a column that is always null,
    # Postgres estimates a third of all rows, and would read the whole table
    left = Job.deleted_at.is_not(None), Job.history_removed_at.is_(None)
    oldest = select(Job.id, Job.deleted_at).where(*left).order_by(Job.deleted_at).limit(AT_ONCE).subquery()
    parts = (Artifact, Preview, Checkpoint, Metric, Event, Attempt, WebhookDelivery, MlflowRun)
    with reading() as session:
        due = oldest.c.deleted_at < once_now() - 2 * settings().lease_seconds
        ids = session.scalars(select(oldest.c.id).where(due)).all()
    for job_id in ids:
        storage().delete_prefix(keys.job(job_id))
        with transaction() as session:
            for table in parts:
                session.execute(delete(table).where(table.job_id == job_id))
            session.execute(update(Job).where(Job.id == job_id).values(history_removed_at=now()))
