"""The rows of runs: claiming one that is due, and recording what is sent."""

from dataclasses import dataclass
from typing import Any

from sqlalchemy import literal_column, select, update

from models.database import now, once_now, reading, transaction
from models.records import Job, MlflowRun
from models.status import JobStatus
from worker.ledger.changes import Taken

CLAIM_SECONDS = 120.0
"""Time after its last write for which a claim is valid. Then another worker may take the run."""
INTERVAL_SECONDS = 10.0
"""Time between two visits of the run of a job that has not ended."""
LONGEST_PAUSE_SECONDS = 600.0
TRY_SECONDS = 3 * 24 * 3600.0
"""Time after the end of a job for which failed sending is tried again."""
PENDING: Any = literal_column("'pending'")
"""A literal, so that the database can use the partial index."""


@dataclass
class DueRun:
    """A claimed run, and what of it is sent already."""

    job_id: str
    attempt: int
    run_id: str | None
    described: bool
    metrics: dict[str, int]
    files: list[str]
    failures: int


def claim() -> DueRun | None:
    """Claim the run that has been due the longest; None if there is none."""
    due = (
        select(MlflowRun.job_id)
        .where(MlflowRun.status == PENDING, MlflowRun.due_at <= once_now())
        .order_by(MlflowRun.due_at)
        .limit(1)
    )
    with reading() as session:
        if session.scalar(due) is None:
            return None
    with transaction() as session:
        job_id = session.scalar(due.with_for_update(skip_locked=True))
        if job_id is None:
            return None
        row = session.execute(
            update(MlflowRun)
            .where(MlflowRun.job_id == job_id)
            .values(attempt=MlflowRun.attempt + 1, due_at=now() + CLAIM_SECONDS)
            .returning(
                MlflowRun.attempt, MlflowRun.run_id, MlflowRun.described, MlflowRun.metrics, MlflowRun.files,
                MlflowRun.failures,
            )
            .execution_options(synchronize_session=False)
        ).one()  # fmt: skip
    return DueRun(job_id, row.attempt, row.run_id, row.described, dict(row.metrics), list(row.files), row.failures)


def keep(run: DueRun, seconds: float = 0.0) -> None:
    """Record what is sent, and hold the claim for `seconds` longer than usual.

    Raises:
        Taken: another worker has taken the run over, or the job was deleted.
    """
    _write(run, due_at=now() + CLAIM_SECONDS + seconds)


def release(run: DueRun) -> None:
    """Record what is sent. The run is due again after the usual interval."""
    _write(run, due_at=now() + INTERVAL_SECONDS, failures=0, error=None)


def end(run: DueRun) -> None:
    """Record that everything is sent."""
    _write(run, status="sent", finished_at=now(), failures=0, error=None)


def fail(run: DueRun, error: str) -> str:
    """Record a failed try; returns the run's status. It is tried again, after longer and longer pauses, until `TRY_SECONDS` after the
    job's end."""
    pause = min(INTERVAL_SECONDS * 2**run.failures, LONGEST_PAUSE_SECONDS)
    with reading() as session:
        ended = select(Job.id).where(Job.id == run.job_id, Job.finished_at < now() - TRY_SECONDS)
        over = session.scalar(ended.where(Job.status.in_([one for one in JobStatus if one.final]))) is not None
    ending = {"status": "failed", "finished_at": now()} if over else {"due_at": now() + pause}
    _write(run, failures=run.failures + 1, error=error[:2000].replace("\0", ""), **ending)
    return "failed" if over else "pending"


def _write(run: DueRun, **values: Any) -> None:
    sent = {"run_id": run.run_id, "described": run.described, "metrics": run.metrics, "files": run.files}
    with transaction() as session:
        mine = MlflowRun.job_id == run.job_id, MlflowRun.attempt == run.attempt, MlflowRun.status == PENDING
        changed = session.execute(
            update(MlflowRun).where(*mine).values(**sent, **values).execution_options(synchronize_session=False)
        )
        if changed.rowcount == 0:  # type: ignore[attr-defined]  # an UPDATE's result is a CursorResult
            raise Taken(run.job_id)
