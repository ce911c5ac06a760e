"""One change of a job: a conditional UPDATE that increments its version, and the events of the change."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from sqlalchemy import ColumnElement, insert, update
from sqlalchemy.orm import Session

from models.database import now
from models.records import Event, Job, MlflowRun
from models.settings import settings
from models.status import JobStatus
from models.webhooks import outbox


class Taken(Exception):
    """This attempt does not hold the row (any more): it has ended, or was taken back."""


class Changed(NamedTuple):
    """The result of a change of a job: the job's attempt number, and the database's time of the change."""

    attempt: int
    at: float


@dataclass(frozen=True)
class Note:
    """An event to be written."""

    type: str
    message: str
    level: str = "info"
    data: Mapping[str, Any] | None = None


def change_job(
    session: Session, job_id: str, *conditions: ColumnElement[bool], notes: Sequence[Note] = (), **values: Any
) -> Changed | None:
    """Change a job if the conditions hold, and append events; returns None if they do not hold."""
    row = session.execute(
        update(Job)
        .where(Job.id == job_id, *conditions)
        .values(version=Job.version + 1, event_seq=Job.event_seq + len(notes), **values)
        .returning(Job.event_seq, Job.attempt, now().label("at"))
        .execution_options(synchronize_session=False)
    ).one_or_none()
    if row is None:
        return None
    if notes:
        _append(session, job_id, row.event_seq - len(notes) + 1, row.attempt, row.at, notes)
    if "status" in values:
        outbox.announce(session, job_id)
        if values["status"] == JobStatus.RUNNING:
            _follow(session, job_id)
    return Changed(row.attempt, row.at)


def _follow(session: Session, job_id: str) -> None:
    """Have MLflow follow a job, if the operator has set a server. The row of the job is locked, so nobody else inserts one."""
    if settings().mlflow_tracking_uri and session.get(MlflowRun, job_id) is None:
        session.add(MlflowRun(job_id=job_id))


def _append(session: Session, job_id: str, first: int, attempt: int, at: float, notes: Sequence[Note]) -> None:
    session.execute(
        insert(Event),
        [
            {
                "job_id": job_id,
                "seq": first + position,
                "attempt": attempt,
                "type": note.type,
                "level": note.level,
                "message": note.message,
                "data": dict(note.data) if note.data is not None else None,
                "created_at": at,
            }
            for position, note in enumerate(notes)
        ],
    )


def status_note(status: str, message: str, level: str = "info", **data: Any) -> Note:
    """The event of a change of status."""
    return Note("status", message, level, {"status": status, **data})
