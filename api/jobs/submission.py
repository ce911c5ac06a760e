"""Making jobs: inputs, checks, idempotency, and the one transaction that holds it all."""

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
from api.jobs.service import find, shown
from models.database import now, reading, transaction
from models.idempotency import KEPT_SECONDS
from models.queue.wake_up import wake_up
from models.records import Event, Idempotency, Inspection, Job
from models.records.columns import new_id
from models.scheduling.resources import ResourceNeeds
from models.spec.job_spec import JobSpec, problems_of
from models.spec.teacher_spec import alone
from models.status import JobStatus

log = structlog.get_logger("api")


@dataclass(frozen=True)
class Promise:
    """The `Idempotency-Key` of a request and the fingerprint of what it asks for."""

    key: str
    fingerprint: str


def promise(key: str | None, asked: Any) -> Promise | None:
    """The promise that a request makes, if it carries a key."""
    if key is None:
        return None
    return Promise(key, hashlib.sha256(json.dumps(asked, sort_keys=True).encode()).hexdigest())


def submit(key_id: str, spec: JobSpec, asked: dict[str, Any], made: Promise | None) -> tuple[JobBody, bool]:
    """A new job, or the one that the same promise made; says whether it was there already.

    Raises:
        Invalid: the spec cannot work, or the promise was made for another one.
        InFlight: the same promise is being served.
        TooMany: the key has as many queued jobs as it may have.
    """
    return _once(key_id, made, lambda session: _insert(session, key_id, spec, asked, made, None))


def retry(key_id: str, job_id: str, made: Promise | None) -> tuple[JobBody, bool]:
    """A new job with the spec of a final one.

    Raises:
        Conflict: that one has not ended.
    """

    def insert(session: Session) -> Job:
        old = find(session, key_id, job_id)
        if not JobStatus(old.status).final:
            raise Conflict(f"The job is {old.status}: only a job that has ended can be repeated.")
        return _insert(session, key_id, _reread(old.spec), old.spec, made, old.id)

    return _once(key_id, made, insert)


def _reread(spec: dict[str, Any]) -> JobSpec:
    """A spec that was good once; methods may have changed since.

    Raises:
        Invalid: it no longer is.
    """
    try:
        return JobSpec.model_validate(spec)
    except ValidationError as error:
        raise Invalid([(problem.pointer, problem.message) for problem in problems_of(error)]) from error


def _once(key_id: str, made: Promise | None, insert: Callable[[Session], Job]) -> tuple[JobBody, bool]:
    with _serving(key_id, made):
        try:
            with transaction() as session:
                known = _kept(session, key_id, made)
                if known is not None:
                    return known, True
                job = insert(session)
                session.flush()
                body = shown(session, job)
        except IntegrityError:  # another process kept the same promise first
            with reading() as session:
                known = _kept(session, key_id, made)
            if known is None:
                raise
            return known, True
    log.info("job_submitted", job=body.id, retry_of=body.retry_of)
    wake_up("inspect")
    return body, False


def _insert(
    session: Session, key_id: str, spec: JobSpec, asked: dict[str, Any], made: Promise | None, retry_of: str | None
) -> Job:
    quota.lock(session, key_id)
    inputs = Inputs(session, key_id, spec, lock=True)
    resolved, reason = inputs.resolved(spec), inputs.waits_for()
    quota.require_room_for_job(session, key_id, resolved)
    job = Job(
        id=new_id("job"), key_id=key_id, name=resolved["name"], labels=resolved["labels"],
        status=JobStatus.QUEUED, priority=resolved["priority"], needs=str(ResourceNeeds.of(resolved["resources"])), reason=reason or "its spec is being checked",
        spec=asked, resolved=resolved, retry_of=retry_of, event_seq=1, attempt=0,
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
    if made is not None:
        session.execute(delete(Idempotency).where(*_promised(key_id, made), ~_holds()))
        row = Idempotency(key_id=key_id, idempotency_key=made.key, fingerprint=made.fingerprint, job_id=job.id)
        session.add(row)
    return job


def _kept(session: Session, key_id: str, made: Promise | None) -> JobBody | None:
    if made is None:
        return None
    promised = select(Idempotency.fingerprint, Idempotency.job_id).where(*_promised(key_id, made), _holds())
    row = session.execute(promised).one_or_none()
    if row is None:
        return None
    if row.fingerprint != made.fingerprint:
        raise Invalid([("Idempotency-Key", "was used for another request: take a new one")])
    return shown(session, find(session, key_id, row.job_id))


def _promised(key_id: str, made: Promise) -> tuple[ColumnElement[bool], ColumnElement[bool]]:
    return Idempotency.key_id == key_id, Idempotency.idempotency_key == made.key


def _holds() -> ColumnElement[bool]:
    return Idempotency.created_at > now() - KEPT_SECONDS


_in_flight: set[tuple[str, str]] = set()
_in_flight_lock = threading.Lock()


@contextmanager
def _serving(key_id: str, made: Promise | None) -> Iterator[None]:
    # in other processes the primary key of the idempotency row decides
    if made is None:
        yield
        return
    mine = (key_id, made.key)
    with _in_flight_lock:
        if mine in _in_flight:
            raise InFlight("A request with this Idempotency-Key is being served.", headers={"Retry-After": "1"})
        _in_flight.add(mine)
    try:
        yield
    finally:
        with _in_flight_lock:
            _in_flight.remove(mine)
