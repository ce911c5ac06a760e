"""Submitting jobs: inputs, checks and idempotency in one transaction, which submissions that arrive together share."""

import asyncio
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import structlog
from pydantic import ValidationError
from sqlalchemy import delete, select
from sqlalchemy.exc import DBAPIError, IntegrityError
from sqlalchemy.orm import Session
from starlette.concurrency import run_in_threadpool

from api.access.quota import JobRooms
from api.http.batches import Batches
from api.http.errors import ApiError, Conflict, Invalid
from api.http.links import current_base, set_base
from api.http.observe import current_request_id
from api.jobs.idempotency import IdempotentRequest, in_flight_guard, not_expired, reused, same_keys
from api.jobs.job_inputs import InputRows, Inputs
from api.jobs.queue import Queue
from api.jobs.schemas import JobBody
from api.jobs.service import find, job_body, short_body
from models.database import UNAVAILABLE, now, reading, transaction
from models.queue.wake_up import wake_up
from models.records import Event, Idempotency, Inspection, Job
from models.records.columns import new_id
from models.scheduling.resources import ResourceNeeds
from models.spec.job_spec import JobSpec, problems_of
from models.spec.teacher_spec import alone
from models.status import JobStatus

MOST_AT_ONCE = 32
"""Most submissions in one transaction."""
MOST_MESSAGES = 4
"""Most wake-up messages for submissions that arrive together; each wakes one idle worker."""
CHECKED = "its spec is being checked"
ANYONE = str(ResourceNeeds())
"""Needs of a check, which any inspect worker can run."""
log = structlog.get_logger("api")


@dataclass(frozen=True, eq=False)
class Submission:
    """One request for a job: `spec` and the `body` it was read from, or the id of an ended job to submit again."""

    key_id: str
    idempotent: IdempotentRequest | None
    spec: JobSpec | None = None
    body: dict[str, Any] | None = None
    retry_of: str | None = None
    experiment_id: str | None = None
    variant: str | None = None
    base: str = field(default_factory=current_base)
    request_id: str | None = field(default_factory=current_request_id)


Submitted = tuple[JobBody, bool]
"""A job, and whether it is that of an earlier identical request."""


class Submissions:
    """The submissions to this process. Those of one key would wait for each other in any case, since its row is locked."""

    def __init__(self) -> None:
        self._batches: Batches[Submission, Submitted] = Batches(submit_all, MOST_AT_ONCE)
        self._unannounced = 0
        self._announcer: asyncio.Task[None] | None = None

    async def submit(self, submission: Submission) -> Submitted:
        """Create a job, or return the one of an earlier identical request.

        Raises:
            Invalid: the spec cannot work, or the `Idempotency-Key` was used with another body.
            InFlight: another request with the same `Idempotency-Key` is in progress.
            TooMany: the key's limit of queued jobs is reached.
            NotFound, Conflict: the job to submit again does not exist, or has not ended.
        """
        with in_flight_guard(submission.key_id, submission.idempotent):
            job, replayed = await self._batches.ask(submission)
        if not replayed:
            self._unannounced += 1
            if self._announcer is None or self._announcer.done():
                self._announcer = asyncio.create_task(self._announce())
        return job, replayed

    async def _announce(self) -> None:
        """Wake inspect workers, beside the transactions: no answer waits for the broker."""
        while self._unannounced:
            count, self._unannounced = min(self._unannounced, MOST_MESSAGES), 0
            await run_in_threadpool(wake_up, "inspect", count)


def submit_all(submissions: Sequence[Submission]) -> list[Submitted | Exception]:
    """Submit in one transaction what can be; an exception for each of the others. Wakes no worker."""
    try:
        results = _submit_together(submissions)
    except UNAVAILABLE:
        raise
    except DBAPIError:  # one of them cannot be stored, or another process has inserted the same idempotency key
        results = [_submit_alone(one) for one in submissions]
    for body, replayed in (result for result in results if not isinstance(result, Exception)):
        if not replayed:
            log.info("job_submitted", job=body.id, retry_of=body.retry_of, request_id=body.request_id)
    return results


def _submit_alone(submission: Submission) -> Submitted | Exception:
    try:
        [result] = _submit_together([submission])
        return result
    except IntegrityError as error:
        with reading() as session:
            known = _earlier_jobs(session, [submission])
        return known.get(submission, error)
    except DBAPIError as error:
        return error


def _submit_together(submissions: Sequence[Submission]) -> list[Submitted | Exception]:
    with transaction() as session:
        rooms, rows = JobRooms(session, {one.key_id for one in submissions}), InputRows(session, lock=True)
        results = _earlier_jobs(session, submissions)
        jobs: dict[Submission, Job] = {}
        at = session.scalars(select(now())).one()
        for one in submissions:
            if one not in results:
                try:
                    jobs[one] = new_job(session, rooms, rows, one, at)
                except ApiError as error:
                    results[one] = error
        insert_jobs(session, jobs)
        queue = Queue(session)
        for one, job in jobs.items():
            set_base(one.base)
            results[one] = short_body(job, queue), False
    return [results[one] for one in submissions]


def new_job(session: Session, rooms: JobRooms, rows: InputRows, one: Submission, at: float) -> Job:
    """The row of a new job, not yet inserted; `at` is the time of the database.

    Raises:
        Invalid, TooMany, NotFound, Conflict: see `Submissions.submit`.
    """
    spec, body = one.spec, one.body
    if one.retry_of is not None:
        old = find(session, one.key_id, one.retry_of)
        if not JobStatus(old.status).final:
            raise Conflict(
                f"The job {old.id} is {old.status}. Wait until it has ended, or cancel it, before you retry it."
            )
        spec, body = _revalidated(old.spec), old.spec
    assert spec is not None and body is not None
    inputs = Inputs(rows, one.key_id, spec)
    resolved = inputs.resolved(spec)
    reason = inputs.waits_for()
    rooms.take(one.key_id, resolved)
    return Job(
        id=new_id("job"), key_id=one.key_id, name=resolved["name"], labels=resolved["labels"],
        status=JobStatus.QUEUED, priority=resolved["priority"], rank=-resolved["priority"], needs=str(ResourceNeeds.of(resolved["resources"])),
        reason=reason or CHECKED, spec=body, resolved=resolved, retry_of=one.retry_of, event_seq=1, attempt=0,
        request_id=one.request_id, created_at=at, due_at=at, experiment_id=one.experiment_id, variant=one.variant,
        teacher_id=alone(spec.teacher), dataset_id=spec.dataset,
        evaluation_id=(resolved["evaluation"] or {}).get("dataset"),
    )  # fmt: skip


def _revalidated(spec: dict[str, Any]) -> JobSpec:
    """Validate a stored spec again, because methods may have changed since.

    Raises:
        Invalid: the spec is no longer valid.
    """
    try:
        return JobSpec.model_validate(spec)
    except ValidationError as error:
        raise Invalid([(problem.pointer, problem.message) for problem in problems_of(error)]) from error


def insert_jobs(session: Session, jobs: dict[Submission, Job]) -> None:
    """Insert new jobs, their first events, and the inspections of those that wait for nothing else.

    No column is left to the database to fill in. So it need not return the rows, and one prepared statement inserts all.
    """
    session.add_all(jobs.values())
    session.flush()
    for job in jobs.values():
        data = {"status": JobStatus.QUEUED, "reason": job.reason}
        session.add(
            Event(
                job_id=job.id, seq=1, attempt=0, type="status", level="info", message="queued", data=data,
                created_at=job.created_at,
            )
        )  # fmt: skip
        if job.reason == CHECKED:
            check = Inspection(
                id=new_id("ins"), kind="job", subject_id=job.id, key_id=job.key_id, request_id=job.request_id,
                priority=job.priority, rank=job.rank, needs=ANYONE, created_at=job.created_at, due_at=job.due_at,
            )  # fmt: skip
            session.add(check)
    idempotent = [(one, one.idempotent, job) for one, job in jobs.items() if one.idempotent is not None]
    if idempotent:
        session.execute(delete(Idempotency).where(same_keys(_pairs(jobs)), ~not_expired()))
    for one, request, job in idempotent:
        row = Idempotency(
            key_id=one.key_id, idempotency_key=request.key, fingerprint=request.fingerprint, job_id=job.id
        )
        session.add(row)
    session.flush()


def _earlier_jobs(session: Session, submissions: Sequence[Submission]) -> dict[Submission, Submitted | Exception]:
    """The jobs of earlier requests with the same `Idempotency-Key`."""
    idempotent = {(one.key_id, one.idempotent.key): one for one in submissions if one.idempotent is not None}
    if not idempotent:
        return {}
    query = select(Idempotency).where(same_keys(_pairs(submissions)), not_expired())
    found: dict[Submission, Submitted | Exception] = {}
    for row in session.scalars(query).all():
        one = idempotent[row.key_id, row.idempotency_key]
        assert one.idempotent is not None
        if row.fingerprint != one.idempotent.fingerprint:
            found[one] = reused()
            continue
        set_base(one.base)
        try:
            found[one] = job_body(session, find(session, one.key_id, row.job_id)), True
        except ApiError as error:
            found[one] = error
    return found


def _pairs(submissions: Iterable[Submission]) -> Iterator[tuple[str, str]]:
    """The API key and the `Idempotency-Key` of each submission that has one."""
    return ((one.key_id, one.idempotent.key) for one in submissions if one.idempotent is not None)
