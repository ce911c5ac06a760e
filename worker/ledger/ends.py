"""How attempts at jobs end, for whoever ends them: the worker that holds one, or a sweep that takes it back."""

from collections.abc import Mapping, Sequence
from typing import Any

from sqlalchemy import ColumnElement, select, update
from sqlalchemy.orm import Session

from models.database import now
from models.records import Attempt, Job
from models.settings import settings
from models.status import JobStatus, sources_of
from worker.ledger.changes import Note, change_job, status_note
from worker.ledger.failures import FAILURES

Error = Mapping[str, Any]
FREE = {"lease_owner": None, "lease_expires_at": None, "rung_at": None}


def error(
    code: str, message: str, hint: str = "", fault: str | None = None, errors: Sequence[Mapping[str, str]] = ()
) -> dict[str, Any]:
    """What a job says when it has failed; without NUL characters, which an engine's log may hold and Postgres refuses.

    A code of the worker's own brings its fault, and a hint where none is given; one of an engine's needs a `fault`.
    """
    if fault is None:
        known = FAILURES[code]
        hint, fault = hint or known.hint, known.fault
    message, hint = message.replace("\0", ""), hint.replace("\0", "")
    return {"code": code, "message": message, "hint": hint, "fault": fault, "errors": [dict(item) for item in errors]}


def held_by(attempt: int) -> tuple[ColumnElement[bool], ...]:
    """The fence: the job is running, and this attempt is its newest."""
    return Job.attempt == attempt, Job.status == JobStatus.RUNNING


def end_attempt(
    session: Session,
    job_id: str,
    number: int,
    outcome: str,
    error: Error | None = None,
    log_key: str | None = None,
    by_holder: bool = True,
) -> None:
    """Close an attempt's row, once. Its log stays what it was if there is no newer one; of an attempt that is not ended `by_holder`
    nobody knows what it did after its last beat, and that does not count."""
    values: dict[str, Any] = {"log_key": log_key} if log_key is not None else {}
    if by_holder:
        values["seconds"] = now() - Attempt.started_at
    session.execute(
        update(Attempt)
        .where(Attempt.job_id == job_id, Attempt.number == number, Attempt.outcome.is_(None))
        .values(outcome=outcome, error=error, ended_at=now(), **values)
    )


def finish(
    session: Session,
    job_id: str,
    target: JobStatus,
    message: str,
    *conditions: ColumnElement[bool],
    error: Error | None = None,
    notes: Sequence[Note] = (),
    **values: Any,
) -> bool:
    """Bring a job into a final state, where the conditions hold and the transition is legal."""
    level = "error" if target == JobStatus.FAILED else "info"
    data = {"error": dict(error)} if error else {}
    phases, at = session.execute(select(Job.phases, now()).where(Job.id == job_id)).one()
    changed = change_job(
        session,
        job_id,
        Job.status.in_(sources_of(target)),
        *conditions,
        notes=[*notes, status_note(target, message, level, **data)],
        status=target,
        reason=None,
        error=error,
        finished_at=now(),
        **({"phases": closed(phases, at)} | FREE | values),
    )
    return changed is not None


def requeue(
    session: Session,
    job_id: str,
    reason: str,
    *conditions: ColumnElement[bool],
    delay_seconds: float = 0.0,
    **values: Any,
) -> bool:
    """Put a running job back into the queue, where the conditions hold."""
    changed = change_job(
        session,
        job_id,
        Job.status.in_(sources_of(JobStatus.QUEUED)),
        *conditions,
        notes=[status_note(JobStatus.QUEUED, f"queued again: {reason}", "warning", reason=reason)],
        status=JobStatus.QUEUED,
        reason=reason,
        due_at=now() + delay_seconds,
        **(FREE | values),
    )
    return changed is not None


def lose(
    session: Session,
    job_id: str,
    number: int,
    reason: str,
    last: Error,
    *conditions: ColumnElement[bool],
    log_key: str | None = None,
    skip_locked: bool = False,
) -> str | None:
    """End an attempt that was lost or whose engine crashed: the job is queued again, is cancelled if that was asked
    for, or fails as poison after so many lost attempts in a row without progress.

    Returns:
        The job's new status; None if it was not this attempt's any more, or with `skip_locked` if somebody else is
        just changing it.
    """
    fence = (*held_by(number), *conditions)
    job = session.scalar(select(Job).where(Job.id == job_id, *fence).with_for_update(skip_locked=skip_locked))
    if job is None:
        return None
    losses = job.losses + 1
    end_attempt(session, job_id, number, "lost", last, log_key, by_holder=not conditions)
    if job.cancel_requested_at is not None:
        finish(session, job_id, JobStatus.CANCELLED, "cancelled", *fence)
        return JobStatus.CANCELLED
    if losses >= settings().most_lost_attempts:
        poison = _poison(losses, last)
        finish(session, job_id, JobStatus.FAILED, poison["message"], *fence, error=poison, losses=losses)
        return JobStatus.FAILED
    delay = settings().beat_seconds * (losses - 1)
    requeue(session, job_id, reason, *fence, delay_seconds=delay, losses=losses)
    return JobStatus.QUEUED


def _poison(losses: int, last: Error) -> dict[str, Any]:
    message = f"{losses} attempts in a row were lost without progress; the last: {last['message']}"
    return error("poison", message, str(last.get("hint", "")), errors=last.get("errors", ()))


def entered(phases: Mapping[str, Any], phase: str, at: float) -> dict[str, Any]:
    """The phases with their times, after one has begun at `at`."""
    begun = closed(phases, at)
    return begun | {phase: {"started_at": begun.get(phase, {}).get("started_at", at), "ended_at": None}}


def closed(phases: Mapping[str, Any], at: float) -> dict[str, Any]:
    """The phases with their times, after the open one has ended at `at`."""
    return {
        name: {"started_at": times["started_at"], "ended_at": at if times["ended_at"] is None else times["ended_at"]}
        for name, times in phases.items()
    }
