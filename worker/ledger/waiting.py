"""Jobs that wait for their inputs to be inspected, and for the check of their spec."""

from collections.abc import Mapping, Sequence
from typing import Any

import structlog
from pydantic import ValidationError
from sqlalchemy import Exists, exists, func, or_, select
from sqlalchemy.orm import Session

from models.database import reading, transaction
from models.records import Dataset, File, Inspection, Job, Teacher
from models.records.columns import Uploaded, new_id
from models.spec import Facts, JobSpec, check, problems_of, resolve
from models.status import InspectionStatus, JobStatus, Phase, UploadStatus
from worker.ledger import ends
from worker.ledger.changes import change_job, status_note

OPEN = (InspectionStatus.QUEUED, InspectionStatus.RUNNING)
log = structlog.get_logger(__name__)


def settle_jobs_of(upload_id: str) -> None:
    """Settle the jobs that wait and name this upload; those that are submitted just now are left to the sweep."""
    names = or_(
        Job.teacher_id == upload_id,
        Job.dataset_id == upload_id,
        Job.evaluation_id == upload_id,
        Job.resolved["student"]["initial_weights"].as_string() == upload_id,
    )
    with reading() as session:
        ids = session.scalars(select(Job.id).where(Job.status == JobStatus.QUEUED, ~Job.ready, names)).all()
    settle_all(ids)


def settle_all(ids: Sequence[str]) -> None:
    """Settle each of these jobs in a transaction of its own, so that none stands in another's way."""
    for job_id in ids:
        try:
            with transaction() as session:
                settle(session, job_id)
        except Exception:
            log.exception("job_not_settled", job=job_id)


def stuck_jobs(session: Session, most: int) -> Sequence[str]:
    """Ids of some jobs, drawn by chance, that wait without a check of their spec on its way."""
    inspected = exists().where(Inspection.subject_id == Job.id, Inspection.status.in_(OPEN))
    waiting = Job.status == JobStatus.QUEUED, ~Job.ready, Job.cancel_requested_at.is_(None), Job.deleted_at.is_(None)
    return session.scalars(select(Job.id).where(*waiting, ~inspected).order_by(func.random()).limit(most)).all()


def settle(session: Session, job_id: str) -> bool:
    """Have a waiting job's spec checked if all its inputs are ready, or fail it if one was rejected.

    Returns:
        Whether an inspection was made, so that the bell is to be rung.
    """
    job = session.scalar(
        select(Job).where(Job.id == job_id, Job.status == JobStatus.QUEUED, ~Job.ready).with_for_update()
    )
    if job is None or session.scalar(select(_inspection_of(job_id))):
        return False
    inputs = _inputs_of(session, job)
    refused = {pointer: upload for pointer, upload in inputs.items() if _is_refused(upload)}
    if refused:
        _fail(session, job_id, refused)
        return False
    if any(upload.status != UploadStatus.READY for upload in inputs.values() if upload):
        return False
    resolved, problems = _resolve(job, inputs)
    if problems:
        fail_check(session, job_id, problems)
        return False
    session.add(
        Inspection(
            id=new_id("ins"),
            kind="job",
            subject_id=job_id,
            request_id=job.request_id,
            key_id=job.key_id,
            priority=job.priority,
        )
    )
    change_job(session, job_id, reason="its spec is being checked", resolved=resolved)
    return True


def _resolve(job: Job, inputs: Mapping[str, Uploaded | None]) -> tuple[dict[str, Any], ends.Error | None]:
    """The spec resolved again, now that all inputs are known, and what turns out to be wrong with it."""
    teacher, dataset, evaluation = map(inputs.get, ("/teacher", "/dataset", "/evaluation/dataset"))
    facts = Facts.of(
        teacher if isinstance(teacher, Teacher) else None,
        dataset if isinstance(dataset, Dataset) else None,
        evaluation if isinstance(evaluation, Dataset) else None,
    )
    try:
        resolved = resolve(JobSpec.model_validate(job.spec), facts)
        problems = check(resolved, facts)
    except ValidationError as error:  # methods have changed since the job was submitted
        resolved, problems = job.resolved, problems_of(error)
    if not problems:
        return resolved, None
    errors = [{"pointer": problem.pointer, "message": problem.message} for problem in problems]
    message = "; ".join(f"{problem.pointer}: {problem.message}" for problem in problems)
    return resolved, ends.error("invalid_spec", message, "Submit a new job.", "user", errors)


def _inspection_of(job_id: str) -> Exists:
    return exists().where(Inspection.subject_id == job_id, Inspection.status.in_(OPEN))


def _inputs_of(session: Session, job: Job) -> dict[str, Uploaded | None]:
    weights = (job.resolved.get("student") or {}).get("initial_weights")
    named: dict[str, tuple[type[Uploaded], str | None]] = {
        "/teacher": (Teacher, job.teacher_id),
        "/dataset": (Dataset, job.dataset_id),
        "/evaluation/dataset": (Dataset, job.evaluation_id),
        "/student/initial_weights": (File, weights),
    }
    return {pointer: session.get(table, id) for pointer, (table, id) in named.items() if id}


def _is_refused(upload: Uploaded | None) -> bool:
    return upload is None or upload.deleted_at is not None or upload.status == UploadStatus.REJECTED


def _fail(session: Session, job_id: str, refused: dict[str, Uploaded | None]) -> None:
    errors = []
    for pointer, upload in refused.items():
        problem = (upload.problem or {}) if upload else {}
        why = str(problem.get("message") or problem.get("detail") or "it was deleted")
        errors.append({"pointer": pointer, "message": f"the input was refused: {why}"})
    hint = "Upload it again, then submit a new job."
    error = ends.error("input_rejected", "; ".join(item["message"] for item in errors), hint, "user", errors)
    ends.finish(
        session,
        job_id,
        JobStatus.FAILED,
        error["message"],
        Job.status == JobStatus.QUEUED,
        error=error,
        phase=Phase.VALIDATING,
    )


def pass_check(session: Session, job_id: str) -> bool:
    """Let a job whose check has passed be claimed."""
    waiting = Job.status == JobStatus.QUEUED, Job.cancel_requested_at.is_(None)
    note = status_note(JobStatus.QUEUED, "the spec has been checked: waiting for a worker", ready=True)
    return change_job(session, job_id, *waiting, notes=[note], ready=True, reason=None) is not None


def fail_check(session: Session, job_id: str, error: ends.Error) -> None:
    """Fail a job whose spec cannot work."""
    waiting = Job.status == JobStatus.QUEUED
    ends.finish(session, job_id, JobStatus.FAILED, error["message"], waiting, error=error, phase=Phase.VALIDATING)
