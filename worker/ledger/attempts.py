"""The writes of one running attempt at a job.

Every method is one transaction, and raises `Taken` if the attempt does not hold the job any more. With a lease, methods
are retried while the database is unavailable, unless their docstring says otherwise.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from sqlalchemy import Table, delete, func, insert, select, update
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.orm import Session

from models.database import now, reading, transaction
from models.records import Artifact, Attempt, Checkpoint, Job, Metric, Preview
from models.records.columns import new_id
from models.scheduling.key_limits import limits_of_key
from models.status import JobStatus
from worker.ledger import ends
from worker.ledger.changes import Note, Taken, change_job
from worker.ledger.retrying import HeldLease, LeasedLedger, retried

KEPT_CHECKPOINTS = 2
UPSERT = {"postgresql": postgresql.insert, "sqlite": sqlite.insert}


@dataclass
class EventBatch:
    """An engine's events since the last transaction. `metrics` maps (name, step) to a value."""

    notes: list[Note] = field(default_factory=list)
    metrics: dict[tuple[str, int], float | None] = field(default_factory=dict)
    progress: Mapping[str, Any] | None = None
    phase: str | None = None
    stage: str | None = None

    def __bool__(self) -> bool:
        return bool(self.notes or self.metrics or self.progress is not None or self.phase)


@dataclass(frozen=True)
class File:
    """A file of an attempt in storage."""

    name: str
    key: str
    content_type: str
    size: int
    sha256: str


class AttemptLedger(LeasedLedger):
    """The rows of attempt `number` at a job."""

    def __init__(self, job_id: str, number: int, lease: HeldLease | None = None):
        super().__init__(lease)
        self.job_id = job_id
        self.number = number

    def _change(self, session: Session, notes: Sequence[Note] = (), **values: Any) -> None:
        if change_job(session, self.job_id, *ends.held_by(self.number), notes=notes, **values) is None:
            raise Taken(self.job_id)

    @retried
    def write(self, batch: EventBatch) -> None:
        """Write a batch of the engine's events."""
        self.try_to_write(batch)

    def try_to_write(self, batch: EventBatch) -> None:
        """The same without retries: the thread that reads the engine's events must not wait for a database."""
        values: dict[str, Any] = {}
        with transaction() as session:
            if batch.phase is not None:
                phases, at = session.execute(select(Job.phases, now()).where(Job.id == self.job_id)).one()
                values |= {"phase": batch.phase, "phases": ends.entered(phases, batch.phase, at), "stage": batch.stage}
            if batch.progress is not None:
                written_at = session.scalars(select(now())).one()
                values |= {"progress": {**batch.progress, "at": written_at}, "stage": batch.stage}
            self._change(session, batch.notes, **values)
            if batch.metrics:
                self._write_metrics(session, batch.metrics)

    def _write_metrics(self, session: Session, metrics: Mapping[tuple[str, int], float | None]) -> None:
        table = Metric.__table__
        assert isinstance(table, Table)
        statement: Any = UPSERT[session.get_bind().dialect.name](table)
        new = statement.excluded
        statement = statement.on_conflict_do_update(
            index_elements=["job_id", "name", "step"],
            set_={"value": new.value, "attempt": new.attempt, "created_at": new.created_at},
            where=table.c.attempt <= new.attempt,
        )
        rows = [
            {"job_id": self.job_id, "name": name, "step": step, "value": value, "attempt": self.number}
            for (name, step), value in metrics.items()
        ]
        session.execute(statement, rows)

    @retried
    def checkpoint(self, manifest: Mapping[str, Any]) -> list[str]:
        """Record a checkpoint whose parts are all in storage, and delete the rows of all but the newest two.

        If it is further than all other checkpoints, that is progress: the count of losses is set to zero.

        Returns:
            SHA-256 of the parts that no checkpoint names any more.
        """
        with transaction() as session:
            step, size = manifest["step"], sum(part["size"] for part in manifest["parts"].values())
            known = session.scalars(select(Checkpoint.manifest).where(Checkpoint.job_id == self.job_id))
            progress = _done(manifest) > max(map(_done, known), default=-1)
            values = {"losses": 0} if progress else {}
            note = Note("checkpoint", f"checkpoint at step {step}", data={"step": step, "size": size})
            self._change(session, [note], **values)
            row = Checkpoint(
                id=new_id("chk"), job_id=self.job_id, attempt=self.number, step=step, manifest=dict(manifest)
            )
            session.add(row)
            session.flush()
            checkpoints = session.scalars(self._newest_checkpoints()).all()
            kept, old = checkpoints[:KEPT_CHECKPOINTS], checkpoints[KEPT_CHECKPOINTS:]
            for checkpoint in old:
                session.delete(checkpoint)
            return sorted(_parts(old) - _parts(kept))

    def _newest_checkpoints(self) -> Any:
        # by time, not by step: after a fallback to an older checkpoint, the newest may be at an earlier step
        order = Checkpoint.created_at.desc(), Checkpoint.step.desc(), Checkpoint.id.desc()
        return select(Checkpoint).where(Checkpoint.job_id == self.job_id).order_by(*order)

    @retried
    def checkpoints(self) -> Sequence[Checkpoint]:
        """The checkpoints of the job, the newest first."""
        with reading() as session:
            return session.scalars(self._newest_checkpoints()).all()

    @retried
    def drop_checkpoint(self, checkpoint_id: str, reason: str) -> None:
        """Delete the row of a checkpoint that cannot be read."""
        with transaction() as session:
            message = f"a checkpoint cannot be read and is ignored: {reason}"
            self._change(session, [Note("checkpoint", message, "warning", {"checkpoint": checkpoint_id})])
            session.execute(delete(Checkpoint).where(Checkpoint.id == checkpoint_id))

    @retried
    def preview(self, file: File, step: int) -> str | None:
        """Publish a preview that is in storage; returns the key of the one that it replaces, if it is another key."""
        with transaction() as session:
            data = {"name": file.name, "step": step, "content_type": file.content_type, "size": file.size}
            self._change(session, [Note("preview", f"preview {file.name} at step {step}", data=data)])
            named = Preview.job_id == self.job_id, Preview.name == file.name
            replaced = session.scalar(select(Preview.key).where(*named))
            values = _values(file) | {"attempt": self.number, "step": step, "created_at": now()}
            if replaced is None:
                session.execute(insert(Preview).values(id=new_id("prv"), job_id=self.job_id, **values))
            else:
                session.execute(update(Preview).where(*named).values(**values))
            return replaced if replaced != file.key else None

    @retried
    def keep_log(self, log_key: str) -> None:
        """Record the log of a running attempt, so that it is available however the attempt ends."""
        with transaction() as session:
            mine = Attempt.job_id == self.job_id, Attempt.number == self.number
            held = select(Attempt.log_key).join(Job, Job.id == Attempt.job_id).where(*mine, *ends.held_by(self.number))
            found = session.execute(held).one_or_none()
            if found is None:
                raise Taken(self.job_id)
            if found.log_key != log_key:
                self._change(session)  # a reader sees a new link
                session.execute(update(Attempt).where(*mine).values(log_key=log_key))

    @retried
    def seconds_used(self) -> float:
        """Seconds for which earlier attempts held the job, without the waiting between them."""
        with reading() as session:
            earlier = Attempt.job_id == self.job_id, Attempt.number < self.number
            return session.scalar(select(func.sum(Attempt.seconds)).where(*earlier)) or 0.0

    @retried
    def metrics(self, most: int) -> Sequence[Any]:
        """The values of the job's metrics that are numbers (name, step, value, created_at), by name and step, at most `most`."""
        with reading() as session:
            columns = Metric.name, Metric.step, Metric.value, Metric.created_at
            query = select(*columns).where(Metric.job_id == self.job_id, Metric.value.is_not(None))
            return session.execute(query.order_by(Metric.name, Metric.step).limit(most)).all()

    @retried
    def minutes_allowed(self) -> int:
        """Maximum number of minutes for which all attempts together may hold the job."""
        with reading() as session:
            key_id = session.scalars(select(Job.key_id).where(Job.id == self.job_id)).one()
            return limits_of_key(session, key_id).job_minutes

    @retried
    def note_restart(self) -> None:
        """Write an event: none of the job's checkpoints can be read."""
        message = "no checkpoint can be read: the job starts again from the beginning"
        with transaction() as session:
            self._change(session, [Note("checkpoint", message, "warning")])

    @retried
    def succeed(
        self,
        summary: Mapping[str, Any],
        files: Sequence[File],
        log_key: str | None,
        student: Mapping[str, Any] | None = None,
    ) -> bool:
        """Publish the artifacts and set the job `succeeded`, in one transaction; returns False if a cancel was
        requested.

        `student` describes the exported student, for jobs that use it as a teacher.
        """
        notes = [
            Note(
                "artifact",
                f"{file.name}, {file.size} bytes",
                data={"name": file.name, "size": file.size, "sha256": file.sha256},
            )
            for file in files
        ]
        notes.append(Note("log", "the engine has finished", data={"summary": dict(summary)}))
        stopped = summary.get("stopped_early")
        message = f"succeeded, stopped early by its {str(stopped).replace('_', ' ')}" if stopped else "succeeded"
        early = {"stopped_early": str(stopped)[:32] if stopped else None, "losses": 0, "student": student}
        with transaction() as session:
            held = select(Job.cancel_requested_at).where(Job.id == self.job_id, *ends.held_by(self.number))
            found = session.execute(held.with_for_update()).one_or_none()
            if found is None:
                raise Taken(self.job_id)
            if found.cancel_requested_at is not None:
                return False
            self._finish(session, JobStatus.SUCCEEDED, message, notes=notes, **early)
            for file in files:
                session.add(Artifact(id=new_id("art"), job_id=self.job_id, attempt=self.number, **_values(file)))
            ends.end_attempt(session, self.job_id, self.number, "succeeded", log_key=log_key)
        return True

    @retried
    def fail(self, error: ends.Error, log_key: str | None) -> None:
        """Set the job `failed`, because of an error that another attempt cannot avoid."""
        with transaction() as session:
            self._finish(session, JobStatus.FAILED, error["message"], error=error)
            ends.end_attempt(session, self.job_id, self.number, "failed", error, log_key)

    @retried
    def cancel(self, log_key: str | None) -> None:
        """Set the job `cancelled`."""
        with transaction() as session:
            self._finish(session, JobStatus.CANCELLED, "cancelled")
            ends.end_attempt(session, self.job_id, self.number, "cancelled", log_key=log_key)

    @retried
    def drain(self, log_key: str | None) -> None:
        """Queue the job again because this worker is drained. It does not count as a loss."""
        with transaction() as session:
            if not ends.requeue(session, self.job_id, "the worker was drained", *ends.held_by(self.number)):
                raise Taken(self.job_id)
            ends.end_attempt(session, self.job_id, self.number, "drained", log_key=log_key)

    @retried
    def postpone(self, error: ends.Error, delay_seconds: float, log_key: str | None) -> None:
        """Queue the job again, due after a delay, because of an error of neither the job nor the engine. It does not
        count as a loss."""
        with transaction() as session:
            held = ends.held_by(self.number)
            if not ends.requeue(session, self.job_id, error["message"], *held, delay_seconds=delay_seconds):
                raise Taken(self.job_id)
            ends.end_attempt(session, self.job_id, self.number, "lost", error, log_key)

    @retried
    def lose(self, error: ends.Error, log_key: str | None) -> str:
        """End an attempt whose engine crashed; returns the job's new status."""
        with transaction() as session:
            status = ends.lose(session, self.job_id, self.number, error["message"], error, log_key=log_key)
            if status is None:
                raise Taken(self.job_id)
            return status

    def published(self) -> bool:
        """Whether this attempt's artifacts have been published. It is not retried and needs no lease."""
        with reading() as session:
            mine = Attempt.job_id == self.job_id, Attempt.number == self.number
            return session.scalar(select(Attempt.outcome).where(*mine)) == "succeeded"

    def _finish(self, session: Session, target: JobStatus, message: str, **more: Any) -> None:
        if not ends.finish(session, self.job_id, target, message, *ends.held_by(self.number), **more):
            raise Taken(self.job_id)


def _done(manifest: Mapping[str, Any]) -> int:
    """The progress of a checkpoint: its steps, and those of a source's warm-up if the engine counts them."""
    return int(manifest.get("done", manifest["step"]))


def _parts(checkpoints: Sequence[Checkpoint]) -> set[str]:
    return {part["sha256"] for checkpoint in checkpoints for part in checkpoint.manifest["parts"].values()}


def _values(file: File) -> dict[str, Any]:
    return {
        "name": file.name,
        "key": file.key,
        "content_type": file.content_type,
        "size": file.size,
        "sha256": file.sha256,
    }
