"""Jobs in the database: read, list, cancel and delete."""

from collections.abc import Sequence
from typing import Any

import structlog
from sqlalchemy import bindparam, delete, select, update
from sqlalchemy.orm import Session, load_only

from api.http.errors import Conflict, NotFound
from api.http.links import link
from api.http.paging import Page, Window
from api.jobs.newest_metrics import newest_metrics
from api.jobs.queue import Queue
from api.jobs.schemas import AttemptBody, JobBody, JobError, JobSummary, MetricValue
from models.database import now, reading, transaction
from models.records import Attempt, Event, Idempotency, Inspection, Job, WebhookDelivery
from models.settings import settings
from models.spec.students import taught_by
from models.status import InspectionStatus, JobStatus, sources_of
from models.storage import keys
from models.storage.errors import StorageError
from models.storage.opening import storage
from models.webhooks import outbox

log = structlog.get_logger("api")
MAX_ATTEMPTS = 20
"""Number of attempts in a response."""
NEWEST_ATTEMPTS = (
    select(Attempt)
    .join(Job, Attempt.job_id == Job.id)
    .where(Job.id.in_(bindparam("jobs", expanding=True)), Attempt.number > Job.attempt - MAX_ATTEMPTS)
    .order_by(Attempt.number.desc())
)
SUMMARY = tuple(getattr(Job, name) for name in JobSummary.model_fields if name != "links")
"""Columns of an entry in a list: without specs, which are most of a row."""
COLLECTIONS = ("events", "metrics", "previews", "artifacts")


def find(session: Session, key_id: str, job_id: str, lock: bool = False) -> Job:
    """The row of a job.

    Raises:
        NotFound: the job does not exist or belongs to another key.
    """
    query = select(Job).where(Job.id == job_id, Job.key_id == key_id, Job.deleted_at.is_(None))
    job = session.scalar(query.with_for_update() if lock else query)
    if job is None:
        raise NotFound(f"The job {job_id} does not exist.")
    return job


def page(
    key_id: str, window: Window, statuses: Sequence[JobStatus], experiment_id: str | None = None
) -> Page[JobSummary]:
    """One page of the key's jobs, or of those of one experiment."""
    query = select(Job).options(load_only(*SUMMARY)).where(Job.key_id == key_id, Job.deleted_at.is_(None))
    if experiment_id is not None:
        query = query.where(Job.experiment_id == experiment_id)
    if statuses:
        query = query.where(Job.status.in_(statuses))
    with reading() as session:
        query = query.where(*window.labelled(session, Job.labels), *window.within(Job.created_at))
        return window.page(session, query, Job.id, _summary)


def job_body(session: Session, job: Job) -> JobBody:
    """The response body of a job."""
    [body] = job_bodies(session, [job], Queue(session))
    return body


def short_body(job: Job, queue: Queue) -> JobBody:
    """The response body of a job without its metrics and attempts."""
    return _body(job, queue, {}, [])


def job_bodies(session: Session, jobs: Sequence[Job], queue: Queue) -> list[JobBody]:
    """The response bodies of jobs, by as many statements as that of one."""
    ids = [job.id for job in jobs]
    metrics, attempts = newest_metrics(session, ids), _attempts(session, ids)
    return [_body(job, queue, metrics[job.id], attempts[job.id]) for job in jobs]


def _body(job: Job, queue: Queue, metrics: dict[str, MetricValue], attempts: list[AttemptBody]) -> JobBody:
    found: dict[str, Any] = {
        "queue_position": queue.position(job),
        "metrics": metrics,
        "reason": queue.reason(job),
        "attempts": attempts,
        "expected_end_at": _expected_end(job),
    }
    return JobBody.model_validate(_columns(job) | found | _expiries(job))


def _expiries(job: Job) -> dict[str, float | None]:
    ended = job.finished_at if JobStatus(job.status).final else None
    succeeded = ended if job.status == JobStatus.SUCCEEDED else None
    return {
        "artifacts_expire_at": job.artifacts_removed_at or _after(succeeded, settings().keep_artifacts_days),
        "history_expire_at": job.history_removed_at or _after(ended, settings().keep_history_days),
    }


def _after(ended: float | None, days: float) -> float | None:
    return ended + days * 24 * 3600 if ended and days else None


def cancel(key_id: str, job_id: str) -> JobBody:
    """Cancel a queued job, or request the cancellation of a running one. Repeated calls change nothing.

    Raises:
        Conflict: the job has succeeded or failed.
    """
    with transaction() as session:
        job = find(session, key_id, job_id, lock=True)
        if job.status in (JobStatus.SUCCEEDED, JobStatus.FAILED):
            raise Conflict(f"The job {job_id} has already {job.status} and cannot be cancelled.")
        if job.status == JobStatus.QUEUED:
            _cancel_queued(session, job)
        elif job.status == JobStatus.RUNNING and job.cancel_requested_at is None:
            update_job(session, job, "log", "cancel requested", cancel_requested_at=now())
        session.refresh(job)
        return job_body(session, job)


def _cancel_queued(session: Session, job: Job) -> None:
    values = {"status": JobStatus.CANCELLED, "reason": None, "cancel_requested_at": now(), "finished_at": now()}
    data = {"status": JobStatus.CANCELLED}
    update_job(session, job, "status", "cancelled", data, phases=_closed_phases(session, job), **values)
    session.execute(
        update(Inspection)
        .where(Inspection.subject_id == job.id, Inspection.status == InspectionStatus.QUEUED)
        .values(status=InspectionStatus.DONE, finished_at=now())
    )


def update_job(
    session: Session, job: Job, kind: str, message: str, data: dict[str, Any] | None = None, **values: Any
) -> None:
    """Change a job in one conditional UPDATE and add an event about it.

    Raises:
        Conflict: the job's status no longer allows the change.
    """
    allowed = sources_of(values["status"]) if "status" in values else (JobStatus(job.status),)
    seq = session.scalar(
        update(Job)
        .where(Job.id == job.id, Job.status.in_(allowed))
        .values(version=Job.version + 1, event_seq=Job.event_seq + 1, **values)
        .returning(Job.event_seq)
        .execution_options(synchronize_session=False)
    )
    if seq is None:
        raise Conflict(f"The status of job {job.id} has just changed. Read the job again.")
    session.add(Event(job_id=job.id, seq=seq, attempt=job.attempt, type=kind, level="info", message=message, data=data))
    if "status" in values:
        session.flush()
        outbox.announce(session, job.id)


def remove(key_id: str, job_id: str) -> None:
    """Hide a job that has ended and delete its blobs. A sweep deletes its rows and any remaining blobs later.

    Raises:
        Conflict: the job has not ended, or an unfinished job uses its student as a teacher.
    """
    with transaction() as session:
        job = find(session, key_id, job_id, lock=True)
        if not JobStatus(job.status).final:
            raise Conflict(f"The job {job_id} is {job.status}. Cancel it before you delete it.")
        user = session.scalar(select(Job.id).where(Job.key_id == key_id, taught_by(job.id)).limit(1))
        if user is not None:
            raise Conflict(
                f"The unfinished job {user} uses the student of {job_id} as a teacher. Cancel {user} or wait until it ends."
            )
        for table in (Idempotency, WebhookDelivery):
            session.execute(delete(table).where(table.job_id == job.id))
        gone = {"deleted_at": now(), "history_removed_at": None}  # so that the sweep visits the job again
        session.execute(update(Job).where(Job.id == job.id).values(version=Job.version + 1, **gone))
    try:
        storage().delete_prefix(keys.job(job_id))
    except StorageError as error:
        log.warning("blobs_left_behind", job=job_id, error=str(error))


def links_of(job: Job) -> dict[str, str]:
    """The links of a job."""
    address = f"/jobs/{job.id}"
    links = {"self": link(address)} | {name: link(f"{address}/{name}") for name in COLLECTIONS}
    final = JobStatus(job.status).final
    links |= {"retry": link(f"{address}/retry")} if final else {"cancel": link(f"{address}/cancel")}
    return links | ({"artifacts.zip": link(f"{address}/artifacts.zip")} if job.status == JobStatus.SUCCEEDED else {})


def _attempts(session: Session, ids: Sequence[str]) -> dict[str, list[AttemptBody]]:
    found: dict[str, list[AttemptBody]] = {job_id: [] for job_id in ids}
    for row in session.scalars(NEWEST_ATTEMPTS, {"jobs": ids}):
        found[row.job_id].append(_attempt(row))
    return found


def _attempt(row: Attempt) -> AttemptBody:
    values = {name: getattr(row, name) for name in ("number", "outcome", "started_at", "ended_at")}
    log_link = {"log": link(f"/jobs/{row.job_id}/attempts/{row.number}/log")} if row.log_key else {}
    error = JobError.model_validate(row.error) if row.error else None
    return AttemptBody.model_validate(values | {"error": error, "links": log_link})


def _expected_end(job: Job) -> float | None:
    progress = job.progress or {}
    at, left = progress.get("at"), progress.get("seconds_left")
    return at + left if job.status == JobStatus.RUNNING and at and left is not None else None


def _summary(job: Job) -> JobSummary:
    return JobSummary.model_validate(
        {column.key: getattr(job, column.key) for column in SUMMARY} | _links_and_error(job)
    )


def _columns(job: Job) -> dict[str, Any]:
    return {column.key: getattr(job, column.key) for column in Job.__table__.columns} | _links_and_error(job)


def _links_and_error(job: Job) -> dict[str, Any]:
    return {"links": links_of(job), "error": JobError.model_validate(job.error) if job.error else None}


def _closed_phases(session: Session, job: Job) -> dict[str, Any]:
    at = session.scalar(select(now()))
    return {name: times | {"ended_at": times.get("ended_at") or at} for name, times in job.phases.items()}
