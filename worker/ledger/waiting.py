"""Jobs that wait for the inspection of their inputs, for the jobs of their teachers, and for the check of their
spec; and teachers whose inspection waits for a dataset."""

from collections.abc import Mapping, Sequence
from typing import Any, TypeAlias

import structlog
from pydantic import ValidationError
from sqlalchemy import Exists, String, cast, exists, func, or_, select, update
from sqlalchemy.orm import Session

from models.database import UNAVAILABLE, now, reading, transaction
from models.records import Dataset, File, Inspection, Job, Teacher
from models.records.columns import Uploaded, new_id
from models.spec.compression import CHOSEN, with_choice
from models.spec.initial_weights import file_of
from models.spec.job_spec import Facts, JobSpec, check, problems_of, resolve
from models.spec.named_files import named_files
from models.spec.students import Student
from models.spec.teacher_spec import JOB, named
from models.status import InspectionStatus, JobStatus, Phase, UploadStatus
from worker.ledger import ends
from worker.ledger.changes import change_job, status_note

OPEN = (InspectionStatus.QUEUED, InspectionStatus.RUNNING)
Input: TypeAlias = Uploaded | Student
log = structlog.get_logger(__name__)


def settle_jobs_of(input_id: str) -> None:
    """Settle the waiting jobs that name this upload, or this job as a teacher.

    Jobs that are being submitted concurrently are left to the sweep. If the database is unavailable, all of them are.
    """
    in_spec = cast(Job.resolved, String).contains(input_id)  # an id is long enough for a text search in the whole spec
    names = or_(Job.teacher_id == input_id, Job.dataset_id == input_id, Job.evaluation_id == input_id, in_spec)
    try:
        with reading() as session:
            ids = session.scalars(select(Job.id).where(Job.status == JobStatus.QUEUED, ~Job.ready, names)).all()
    except UNAVAILABLE as error:
        log.warning("jobs_left_to_the_sweep", input=input_id, error=str(error).partition("\n")[0])
        return
    settle_all(ids)


def wake_teachers_of(session: Session, dataset_id: str) -> None:
    """If a dataset is ready or never will be, make the queued inspections of the teachers due that wait for it."""
    dataset = session.get(Dataset, dataset_id, populate_existing=True)
    if is_awaited(dataset) and refusal(dataset) is None:
        return
    inspecting = Teacher.status == UploadStatus.INSPECTING, Teacher.deleted_at.is_(None)
    teachers = select(Teacher.id).where(*inspecting, Teacher.dataset == dataset_id)
    waiting = Inspection.status == InspectionStatus.QUEUED, Inspection.subject_id.in_(teachers)
    session.execute(
        update(Inspection).where(*waiting).values(due_at=now()).execution_options(synchronize_session=False)
    )


def settle_all(ids: Sequence[str]) -> None:
    """Settle each of these jobs in its own transaction, so that an error with one does not affect the others."""
    for job_id in ids:
        try:
            with transaction() as session:
                settle(session, job_id)
        except Exception:
            log.exception("job_not_settled", job=job_id)


def stuck_jobs(session: Session, most: int) -> Sequence[str]:
    """Ids of at most `most` random jobs that wait without a queued or running check of their spec."""
    inspected = exists().where(Inspection.subject_id == Job.id, Inspection.status.in_(OPEN))
    waiting = Job.status == JobStatus.QUEUED, ~Job.ready, Job.cancel_requested_at.is_(None), Job.deleted_at.is_(None)
    return session.scalars(select(Job.id).where(*waiting, ~inspected).order_by(func.random()).limit(most)).all()


def settle(session: Session, job_id: str) -> bool:
    """Queue the check of a waiting job's spec if all its inputs are ready, or fail the job if one was rejected.

    Returns:
        Whether a check was queued, so that a worker must be woken up.
    """
    job = session.scalar(
        select(Job).where(Job.id == job_id, Job.status == JobStatus.QUEUED, ~Job.ready).with_for_update()
    )
    if job is None or session.scalar(select(_inspection_of(job_id))):
        return False
    inputs = _inputs_of(session, job)
    refused = {pointer: why for pointer, one in inputs.items() if (why := refusal(one))}
    if refused:
        _fail(session, job_id, refused)
        return False
    if any(is_awaited(one) for one in inputs.values()):
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


def _resolve(job: Job, inputs: Mapping[str, Input | None]) -> tuple[dict[str, Any], ends.Error | None]:
    """The spec resolved again with the findings of all inputs, and the error of its checks."""
    dataset, evaluation = map(inputs.get, ("/dataset", "/evaluation/dataset"))
    facts = Facts.of(
        {pointer: one for pointer, one in inputs.items() if isinstance(one, Teacher | Student)},
        dataset if isinstance(dataset, Dataset) else None,
        evaluation if isinstance(evaluation, Dataset) else None,
        {one.pointer: file for one in named_files(job.resolved) if isinstance(file := inputs[one.pointer], File)},
    )
    try:
        resolved = resolve(JobSpec.model_validate(job.spec), facts)
        problems = check(resolved, facts)
    except ValidationError as error:  # the catalogue has changed since the job was submitted
        resolved, problems = job.resolved, problems_of(error)
    if not problems:
        return resolved, None
    errors = [{"pointer": problem.pointer, "message": problem.message} for problem in problems]
    message = "; ".join(f"{problem.pointer}: {problem.message}" for problem in problems)
    return resolved, ends.error("invalid_spec", message, errors=errors)


def _inspection_of(job_id: str) -> Exists:
    return exists().where(Inspection.subject_id == job_id, Inspection.status.in_(OPEN))


def _inputs_of(session: Session, job: Job) -> dict[str, Input | None]:
    """The inputs that the spec names, by their places in the spec; None for those without a row."""
    weights = file_of((job.resolved.get("student") or {}).get("initial_weights"))
    inputs: dict[str, tuple[type[Uploaded], str | None]] = {
        "/dataset": (Dataset, job.dataset_id),
        "/evaluation/dataset": (Dataset, job.evaluation_id),
        "/student/initial_weights": (File, weights),
    }
    teachers = named(job.spec.get("teacher") or job.teacher_id)
    found: dict[str, Input | None] = {pointer: _teacher(session, each) for pointer, each in teachers.items()}
    found |= {pointer: session.get(table, id) for pointer, (table, id) in inputs.items() if id}
    return found | {one.pointer: session.get(File, one.id) for one in named_files(job.resolved)}


def _teacher(session: Session, identifier: str) -> Teacher | Student | None:
    if not identifier.startswith(JOB):
        return session.get(Teacher, identifier)
    job = session.get(Job, identifier)
    return Student.of(session, job) if job else None


def is_awaited(one: Input | None) -> bool:
    """Whether an input is not ready yet."""
    if isinstance(one, Student):
        return one.waits
    return one is not None and one.status != UploadStatus.READY


def refusal(one: Input | None) -> str | None:
    """Why an input will never be ready; None if it is or may become ready."""
    if isinstance(one, Student):
        return one.refusal()
    if one is not None and one.deleted_at is None and one.status != UploadStatus.REJECTED:
        return None
    problem = (one.problem or {}) if one else {}
    return f"the input cannot be used: {problem.get('message') or problem.get('detail') or 'it was deleted'}"


def _fail(session: Session, job_id: str, refused: Mapping[str, str]) -> None:
    errors = [{"pointer": pointer, "message": why} for pointer, why in refused.items()]
    hint = "Upload it again or use another one, then submit a new job."
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


def pass_check(session: Session, job_id: str, facts: Mapping[str, Any]) -> bool:
    """Mark a job whose check has passed as ready to be claimed; what the check has chosen becomes part of its resolved spec."""
    waiting = Job.status == JobStatus.QUEUED, Job.cancel_requested_at.is_(None)
    note = status_note(JobStatus.QUEUED, "the spec has been checked; waiting for a worker", ready=True)
    values: dict[str, Any] = {"ready": True, "reason": None}
    if facts.get(CHOSEN) and (job := session.get(Job, job_id)) is not None:
        values["resolved"] = with_choice(job.resolved, facts)
    return change_job(session, job_id, *waiting, notes=[note], **values) is not None


def fail_check(session: Session, job_id: str, error: ends.Error) -> None:
    """Fail a job whose spec has errors."""
    waiting = Job.status == JobStatus.QUEUED
    ends.finish(session, job_id, JobStatus.FAILED, error["message"], waiting, error=error, phase=Phase.VALIDATING)
