"""What any worker does for all of them: lost leases, cancelled jobs, due work that nobody was told of, orphans.

Each of these is a conditional change, so that any number of workers may do it at once.
"""

from collections.abc import Sequence
from itertools import islice
from typing import Any

import structlog
from sqlalchemy import delete, literal_column, select, update

from models.database import now, once_now, reading, transaction
from models.queue.wake_up import KINDS, Kind, wake_up
from models.records import Artifact, Attempt, Checkpoint, Event, Inspection, Job, Metric, Preview, WebhookDelivery
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
"""Whoever asked for a check without a job has had an answer by then, and has removed it unless they died."""
OVERDUE_SECONDS = 2.0
"""A worker sees a cancel within a second; one that it has not carried out so long after the grace is left to a sweep."""
FINAL = tuple(status for status in JobStatus if status.final)
log = structlog.get_logger(__name__)


def take_back_jobs() -> int:
    """Take back jobs whose lease has run out; says how many."""
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
    """Take back inspections whose lease has run out; says how many."""
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
    """Cancel the queued jobs for which that was asked."""
    asked = Job.status == literal_column("'queued'"), Job.cancel_requested_at.is_not(None)  # as in its index
    with reading() as session:
        ids = session.scalars(select(Job.id).where(*asked).limit(AT_ONCE)).all()
    for job_id in ids:
        with transaction() as session:
            ends.finish(session, job_id, JobStatus.CANCELLED, "cancelled", *asked)


def cancel_overdue() -> None:
    """Cancel the running jobs whose worker should long have done it: it is stopped, or has died and still has its lease."""
    patience = settings().cancel_grace_seconds + OVERDUE_SECONDS
    asked = Job.status == JobStatus.RUNNING, Job.cancel_requested_at < now() - patience
    with reading() as session:
        late = session.execute(select(Job.id, Job.attempt).where(*asked).limit(AT_ONCE)).all()
    for job_id, attempt in late:
        with transaction() as session:
            fence = (*asked, *ends.held_by(attempt))
            if ends.finish(session, job_id, JobStatus.CANCELLED, "cancelled", *fence):
                ends.end_attempt(session, job_id, attempt, "cancelled", by_holder=False)


def clear_checks() -> None:
    """Remove checks without a job whose asker has died."""
    old = Inspection.kind == "check", Inspection.created_at < now() - CHECK_SECONDS
    with reading() as session:
        ids = session.scalars(select(Inspection.id).where(*old).limit(AT_ONCE)).all()
    if ids:
        with transaction() as session:
            session.execute(delete(Inspection).where(Inspection.id.in_(ids)))


def settle_stuck_jobs() -> None:
    """Have jobs checked, or fail them, where the word that their inputs are inspected was lost."""
    with reading() as session:
        ids = waiting.stuck_jobs(session, AT_ONCE)
    waiting.settle_all(ids)


def wake_idle_workers() -> None:
    """Send a wake-up message for each due row for which none was sent lately, up to the number of idle workers.

    A message is for no worker in particular: where only some could take the work, all idle ones are woken up.
    """
    idle = idle_workers()
    for kind in KINDS:
        if idle[kind] and (messages := _mark_sent(kind, idle[kind])):
            wake_up(kind, messages)


def _mark_sent(kind: Kind, idle: Sequence[Machine]) -> int:
    line: Line = Job if kind == "distill" else Inspection
    silent = (line.rung_at.is_(None)) | (line.rung_at < now() - settings().sweep_seconds)
    with reading() as session:
        found = list(islice(turns(session, line, lambda needs: any_fits(idle, needs), silent), len(idle)))
    if not found:
        return 0
    with transaction() as session:
        mine = line.id.in_([turn.id for turn in found]), silent
        marked = session.execute(update(line).where(*mine).values(rung_at=now()).returning(line.needs)).scalars().all()
    picky = any(not machine.fits(ResourceNeeds.read(needs)) for needs in set(marked) for machine in idle)
    return len(idle) if picky else len(marked)


def clear_checkpoints() -> None:
    """Remove the checkpoints of jobs that have ended, some leases ago: then no attempt uploads any more."""
    ended = Job.status.in_(FINAL), Job.finished_at < now() - 10 * settings().lease_seconds
    with reading() as session:
        # of each checkpoint, whether its job has ended: a join might begin with all jobs that have
        query = select(Checkpoint.job_id).where(select(Job.id).where(Job.id == Checkpoint.job_id, *ended).exists())
        ids = session.scalars(query.distinct().limit(AT_ONCE)).all()
    for job_id in ids:
        storage().delete_prefix(keys.checkpoint_parts(job_id))
        with transaction() as session:
            session.execute(delete(Checkpoint).where(Checkpoint.job_id == job_id))


def clear_deleted_jobs() -> None:
    """Remove all blobs and rows of deleted jobs but the job's own."""
    # the oldest first and only then their age: compared with a time, a column that is null everywhere seems to match a
    # third of all rows, and Postgres reads them all
    left = Job.deleted_at.is_not(None), Job.history_removed_at.is_(None)
    oldest = select(Job.id, Job.deleted_at).where(*left).order_by(Job.deleted_at).limit(AT_ONCE).subquery()
    parts = (Artifact, Preview, Checkpoint, Metric, Event, Attempt, WebhookDelivery)
    with reading() as session:
        gone = oldest.c.deleted_at < once_now() - 2 * settings().lease_seconds
        ids = session.scalars(select(oldest.c.id).where(gone)).all()
    for job_id in ids:
        storage().delete_prefix(keys.job(job_id))
        with transaction() as session:
            for table in parts:
                session.execute(delete(table).where(table.job_id == job_id))
            session.execute(update(Job).where(Job.id == job_id).values(history_removed_at=now()))
