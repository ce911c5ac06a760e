"""The ends of attempts at jobs, written by the worker that holds one or by a sweep that takes it back."""

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
NO_LEASE = {"lease_owner": None, "lease_expires_at": None, "woken_at": None}


def error(
    code: str, message: str, hint: str = "", fault: str | None = None, errors: Sequence[Mapping[str, str]] = ()
) -> dict[str, Any]:
    """The error of a failed job or upload, without NUL characters: an engine's log may contain them, but Postgres
    refuses them.

    The fault and the default hint of a worker's code come from `FAILURES`; a code of the engine needs a `fault`.
    """
    if fault is None:
        known = FAILURES[code]
        hint, fault = hint or known.hint, known.fault
    message, hint = message.replace("\0", ""), hint.replace("\0", "")
    return {"code": code, "message": message, "hint": hint, "fault": fault, "errors": [dict(item) for item in errors]}


def held_by(attempt: int) -> tuple[ColumnElement[bool], ...]:
    """The fencing condition: the job is running, and this attempt is its newest."""
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
    """Set the end of an attempt's row, unless it is set. Without a `log_key` the recorded one stays.

    If the worker that holds the attempt does not end it itself (`by_holder`), its seconds stay those of its last
    heartbeat: what it did afterwards is unknown.
    """
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
    """Set the final status of a job, if the conditions hold and the transition is allowed; returns whether it was
    set."""
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
        **({"phases": closed(phases, at)} | NO_LEASE | values),
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
    """Queue a running job again, if the conditions hold; returns whether it was queued."""
    changed = change_job(
        session,
        job_id,
        Job.status.in_(sources_of(JobStatus.QUEUED)),
        *conditions,
        notes=[status_note(JobStatus.QUEUED, f"queued again: {reason}", "warning", reason=reason)],
        status=JobStatus.QUEUED,
        reason=reason,
        due_at=now() + delay_seconds,
        **(NO_LEASE | values),
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
    """End an attempt that was lost or whose engine crashed. The job is queued again, cancelled if a cancel was
    requested, or fails as poison after `most_lost_attempts` lost attempts in a row without progress.

    Returns:
        The job's new status; None if this attempt does not hold it any more, or if `skip_locked` and another
        transaction has locked the row.
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
    message = f"{losses} attempts in a row were lost without progress; the last one: {last['message']}"
    return error("poison", message, str(last.get("hint", "")), errors=last.get("errors", ()))


def entered(phases: Mapping[str, Any], phase: str, at: float) -> dict[str, Any]:
    """The phases with their times, after `phase` has started at `at`."""
    earlier = closed(phases, at)
    return earlier | {phase: {"started_at": earlier.get(phase, {}).get("started_at", at), "ended_at": None}}


def closed(phases: Mapping[str, Any], at: float) -> dict[str, Any]:
    """The phases with their times, after the open one has ended at `at`."""
    return {
        name: {"started_at": times["started_at"], "ended_at": at if times["ended_at"] is None else times["ended_at"]}
        for name, times in phases.items()
    }
