"""Submitting jobs: inputs, checks and idempotency in one transaction."""

import hashlib
import json
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import structlog
from pydantic import ValidationError
from sqlalchemy import ColumnElement, delete, select
from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import Session

from api.access import quota
from api.http.errors import Conflict, InFlight, Invalid
from api.http.observe import current_request_id
from api.jobs.job_inputs import Inputs
from api.jobs.schemas import JobBody
from api.jobs.service import find, job_body
from models.database import now, reading, transaction
from models.idempotency import KEPT_SECONDS
from models.queue.wake_up import wake_up
from models.records import Event, Idempotency, Inspection, Job
from models.records.columns import new_id
from models.scheduling import key_usage
from models.scheduling.resources import ResourceNeeds
from models.spec.job_spec import JobSpec, problems_of
from models.spec.teacher_spec import alone
from models.status import JobStatus

log = structlog.get_logger("api")


@dataclass(frozen=True)
class IdempotentRequest:
    """The `Idempotency-Key` of a request and the fingerprint of its body."""

    key: str
    fingerprint: str


def idempotent_request(key: str | None, body: Any) -> IdempotentRequest | None:
    """The key and fingerprint of a request; None without an `Idempotency-Key`."""
    if key is None:
        return None
    return IdempotentRequest(key, hashlib.sha256(json.dumps(body, sort_keys=True).encode()).hexdigest())


def submit(
    key_id: str, spec: JobSpec, body: dict[str, Any], idempotent: IdempotentRequest | None
) -> tuple[JobBody, bool]:
    """Create a job, or return the one of an earlier identical request; the flag is True in the second case.

    Raises:
        Invalid: the spec cannot work, or the `Idempotency-Key` was used with another body.
        InFlight: another request with the same `Idempotency-Key` is in progress.
        TooMany: the key's limit of queued jobs is reached.
    """
    return _once(key_id, idempotent, lambda session: _insert(session, key_id, spec, body, idempotent, None))


def retry(key_id: str, job_id: str, idempotent: IdempotentRequest | None) -> tuple[JobBody, bool]:
    """Create a job with the spec of a job that has ended; otherwise like `submit`.

    Raises:
        Conflict: the job has not ended.
    """

    def insert(session: Session) -> Job:
        old = find(session, key_id, job_id)
        if not JobStatus(old.status).final:
            raise Conflict(
                f"The job {job_id} is {old.status}. Wait until it has ended, or cancel it, before you retry it."
            )
        return _insert(session, key_id, _revalidated(old.spec), old.spec, idempotent, old.id)

    return _once(key_id, idempotent, insert)


def _revalidated(spec: dict[str, Any]) -> JobSpec:
    """Validate a stored spec again, because methods may have changed since.

    Raises:
        Invalid: the spec is no longer valid.
    """
    try:
        return JobSpec.model_validate(spec)
    except ValidationError as error:
        raise Invalid([(problem.pointer, problem.message) for problem in problems_of(error)]) from error


def _once(key_id: str, idempotent: IdempotentRequest | None, insert: Callable[[Session], Job]) -> tuple[JobBody, bool]:
    with _in_flight_guard(key_id, idempotent):
        try:
            with transaction() as session:
                known = _earlier_job(session, key_id, idempotent)
                if known is not None:
                    return known, True
                job = insert(session)
                session.flush()
                body = job_body(session, job)
        except IntegrityError:  # another process has inserted the same idempotency key
            with reading() as session:
                known = _earlier_job(session, key_id, idempotent)
            if known is None:
                raise
            return known, True
    log.info("job_submitted", job=body.id, retry_of=body.retry_of)
    wake_up("inspect")
    return body, False


def _insert(
    session: Session,
    key_id: str,
    spec: JobSpec,
    body: dict[str, Any],
    idempotent: IdempotentRequest | None,
    retry_of: str | None,
) -> Job:
    key_usage.lock(session, key_id)
    inputs = Inputs(session, key_id, spec, lock=True)
    resolved = inputs.resolved(spec)
    reason = inputs.waits_for()
    quota.require_room_for_job(session, key_id, resolved)
    job = Job(
        id=new_id("job"), key_id=key_id, name=resolved["name"], labels=resolved["labels"],
        status=JobStatus.QUEUED, priority=resolved["priority"], needs=str(ResourceNeeds.of(resolved["resources"])), reason=reason or "its spec is being checked",
        spec=body, resolved=resolved, retry_of=retry_of, event_seq=1, attempt=0,
        request_id=current_request_id(),
        teacher_id=alone(spec.teacher), dataset_id=spec.dataset,
        evaluation_id=(resolved["evaluation"] or {}).get("dataset"),
    )  # fmt: skip
    session.add(job)
    session.flush()
    data = {"status": JobStatus.QUEUED, "reason": job.reason}
    session.add(Event(job_id=job.id, seq=1, attempt=0, type="status", level="info", message="queued", data=data))
    if reason is None:
        check = Inspection(id=new_id("ins"), kind="job", subject_id=job.id, key_id=key_id, priority=job.priority)
        check.request_id = job.request_id
        session.add(check)
    if idempotent is not None:
        session.execute(delete(Idempotency).where(*_same_key(key_id, idempotent), ~_not_expired()))
        row = Idempotency(
            key_id=key_id, idempotency_key=idempotent.key, fingerprint=idempotent.fingerprint, job_id=job.id
        )
        session.add(row)
    return job


def _earlier_job(session: Session, key_id: str, idempotent: IdempotentRequest | None) -> JobBody | None:
    if idempotent is None:
        return None
    earlier = select(Idempotency.fingerprint, Idempotency.job_id).where(*_same_key(key_id, idempotent), _not_expired())
    row = session.execute(earlier).one_or_none()
    if row is None:
        return None
    if row.fingerprint != idempotent.fingerprint:
        raise Invalid([("Idempotency-Key", "was already used with another body: choose a new one")])
    return job_body(session, find(session, key_id, row.job_id))


def _same_key(key_id: str, idempotent: IdempotentRequest) -> tuple[ColumnElement[bool], ColumnElement[bool]]:
    return Idempotency.key_id == key_id, Idempotency.idempotency_key == idempotent.key


def _not_expired() -> ColumnElement[bool]:
    return Idempotency.created_at > now() - KEPT_SECONDS


_in_flight: set[tuple[str, str]] = set()
_in_flight_lock = threading.Lock()


@contextmanager
def _in_flight_guard(key_id: str, idempotent: IdempotentRequest | None) -> Iterator[None]:
    # guards this process only; between processes the primary key of the idempotency row decides
    if idempotent is None:
        yield
        return
    mine = (key_id, idempotent.key)
    with _in_flight_lock:
        if mine in _in_flight:
            detail = "Another request with this Idempotency-Key is in progress. Try again in a second."
            raise InFlight(detail, headers={"Retry-After": "1"})
        _in_flight.add(mine)
    try:
        yield
    finally:
        with _in_flight_lock:
            _in_flight.remove(mine)
