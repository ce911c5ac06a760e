"""Experiments in the database: submit, read, list, cancel and delete."""

from collections.abc import Sequence
from typing import Any

import structlog
from sqlalchemy import Row, func, select, update
from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import Session

from api.access.quota import JobRooms
from api.experiments.plan import Planned, planned, specs_of
from api.experiments.schemas import ExperimentBody, ExperimentSpec, ExperimentSummary, MemberBody, VariantBody
from api.http.errors import Conflict, Invalid, NotFound
from api.http.links import link
from api.http.paging import Page, Window
from api.http.row_watch import Token
from api.jobs import service as jobs_service
from api.jobs.idempotency import IdempotentRequest, earlier_job, in_flight_guard
from api.jobs.job_inputs import InputRows
from api.jobs.submission import MOST_MESSAGES, Submission, insert_jobs, new_job
from models.database import now, reading, transaction
from models.queue.wake_up import wake_up
from models.records import Experiment, Job
from models.records.columns import new_id
from models.status import JobStatus

log = structlog.get_logger("api")
SEED = Job.resolved["training"]["seed"].as_integer()
FRACTION = Job.progress["fraction"].as_float()


def submit(
    key_id: str, spec: ExperimentSpec, body: dict[str, Any], idempotent: IdempotentRequest | None
) -> ExperimentBody:
    """Create an experiment and queue all of its jobs, or return the one of an earlier identical request.

    Raises:
        Invalid: a job cannot work; lists the problems of all jobs, and nothing is queued.
        TooMany: the key may not queue so many jobs.
        InFlight: another request with the same `Idempotency-Key` is in progress.
    """
    plan = planned(spec)
    specs = specs_of(plan)
    with in_flight_guard(key_id, idempotent):
        try:
            made, replayed = _submit(key_id, spec, body, [*zip(plan, specs, strict=True)], idempotent)
        except IntegrityError:  # another process has inserted the same idempotency key
            made, replayed = _submit(key_id, spec, body, [*zip(plan, specs, strict=True)], idempotent)
    if not replayed:
        log.info("experiment_submitted", experiment=made.id, jobs=len(plan))
        wake_up("inspect", min(len(plan), MOST_MESSAGES))
    return made


def _submit(
    key_id: str, spec: ExperimentSpec, body: dict[str, Any], plan: Sequence[tuple[Planned, Any]],
    idempotent: IdempotentRequest | None,
) -> tuple[ExperimentBody, bool]:  # fmt: skip
    with transaction() as session:
        rooms, rows = JobRooms(session, {key_id}), InputRows(session, lock=True)
        if idempotent is not None and (earlier := earlier_job(session, key_id, idempotent)) is not None:
            return _body(session, find(session, key_id, earlier.experiment_id or "")), True
        rooms.require(key_id, len(plan))
        experiment = Experiment(id=new_id("exp"), key_id=key_id, name=spec.name, labels=spec.labels, spec=body)
        session.add(experiment)
        session.flush()
        jobs: dict[Submission, Job] = {}
        at = session.scalars(select(now())).one()
        problems: dict[tuple[str, str], None] = {}
        for number, (one, job_spec) in enumerate(plan):
            first = idempotent if number == 0 else None
            submission = Submission(key_id, first, job_spec, one.body, experiment_id=experiment.id, variant=one.variant)
            try:
                jobs[submission] = new_job(session, rooms, rows, submission, at)
            except Invalid as error:
                problems |= {(one.place_of(pointer), message): None for pointer, message in error.errors}
        if problems:
            raise Invalid(list(problems))
        insert_jobs(session, jobs)
        return _body(session, experiment), False


def find(session: Session, key_id: str, identifier: str, lock: bool = False) -> Experiment:
    """The row of an experiment.

    Raises:
        NotFound: the experiment does not exist or belongs to another key.
    """
    mine = Experiment.id == identifier.replace("\0", ""), Experiment.key_id == key_id, Experiment.deleted_at.is_(None)
    query = select(Experiment).where(*mine)
    experiment = session.scalar(query.with_for_update() if lock else query)
    if experiment is None:
        raise NotFound(f"The experiment {identifier} does not exist.")
    return experiment


def jobs_of(session: Session, identifier: str) -> Sequence[Row[Any]]:
    """`id`, `variant`, `status`, `seed` and `fraction` of the jobs of an experiment, in the order of submission."""
    columns = Job.id, Job.variant, Job.status, SEED.label("seed"), FRACTION.label("fraction")
    query = select(*columns).where(Job.experiment_id == identifier, Job.deleted_at.is_(None))
    return session.execute(query.order_by(Job.id)).all()


def get(key_id: str, identifier: str) -> tuple[ExperimentBody, Token]:
    """An experiment, and the token with which its next change can be waited for."""
    with reading() as session:
        experiment = find(session, key_id, identifier)
        token = session.execute(select(func.sum(Job.version)).where(Job.experiment_id == identifier)).one()
        return _body(session, experiment), tuple(token)


def page(key_id: str, window: Window) -> Page[ExperimentSummary]:
    """One page of the key's experiments."""
    query = select(Experiment).where(Experiment.key_id == key_id, Experiment.deleted_at.is_(None))
    with reading() as session:
        query = query.where(*window.labelled(session, Experiment.labels), *window.within(Experiment.created_at))
        rows, cursor = window.rows(session, query, Experiment.id)
        found: list[Experiment] = [row[0] for row in rows]
        counts = _counts(session, [one.id for one in found])
        shown = [ExperimentSummary.model_validate(_columns(one, counts[one.id])) for one in found]
    return Page(data=shown, next_cursor=cursor)


def cancel(key_id: str, identifier: str) -> ExperimentBody:
    """Cancel all jobs of an experiment that have not ended. Repeated calls change nothing."""
    with reading() as session:
        find(session, key_id, identifier)
        jobs = [job.id for job in jobs_of(session, identifier) if not JobStatus(job.status).final]
    for job_id in jobs:
        try:
            jobs_service.cancel(key_id, job_id)
        except (Conflict, NotFound):  # it has just ended, or was deleted
            continue
    return get(key_id, identifier)[0]


def remove(key_id: str, identifier: str) -> None:
    """Delete an experiment and its jobs.

    Raises:
        Conflict: a job has not ended, or an unfinished job uses the student of one as a teacher.
    """
    with reading() as session:
        find(session, key_id, identifier)
        jobs = jobs_of(session, identifier)
    left = sum(not JobStatus(job.status).final for job in jobs)
    if left:
        raise Conflict(f"{left} jobs of the experiment {identifier} have not ended. Cancel it before you delete it.")
    for job in jobs:
        try:
            jobs_service.remove(key_id, job.id)
        except NotFound:  # deleted meanwhile
            continue
    with transaction() as session:
        session.execute(update(Experiment).where(Experiment.id == identifier).values(deleted_at=now()))


def _body(session: Session, experiment: Experiment) -> ExperimentBody:
    variants: dict[str, list[MemberBody]] = {}
    for job in jobs_of(session, experiment.id):
        variants.setdefault(job.variant or "", []).append(MemberBody.model_validate(job))
    shown = [VariantBody(name=name, jobs=jobs) for name, jobs in variants.items()]
    counts = _counts(session, [experiment.id])[experiment.id]
    return ExperimentBody.model_validate(_columns(experiment, counts) | {"variants": shown})


def _counts(session: Session, ids: Sequence[str]) -> dict[str, dict[str, int]]:
    found: dict[str, dict[str, int]] = {identifier: {} for identifier in ids}
    query = select(Job.experiment_id, Job.status, func.count()).where(
        Job.experiment_id.in_(ids), Job.deleted_at.is_(None)
    )
    for identifier, status, count in session.execute(query.group_by(Job.experiment_id, Job.status)):
        found[str(identifier)][status] = count
    return found


def _columns(experiment: Experiment, counts: dict[str, int]) -> dict[str, Any]:
    values = {column.key: getattr(experiment, column.key) for column in Experiment.__table__.columns}
    ended = all(JobStatus(status).final for status in counts)
    address = f"/experiments/{experiment.id}"
    links = {"self": link(address)} | {name: link(f"{address}/{name}") for name in ("jobs", "table", "cancel")}
    return values | {"counts": counts, "status": "ended" if ended else "running", "links": links}
