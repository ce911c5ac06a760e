"""The writes of one running attempt at an inspection, and the end of a lost one."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import ColumnElement, select, update
from sqlalchemy.orm import Session

from models.database import now, reading, transaction
from models.records import Dataset, File, Inspection, Teacher
from models.records.columns import Uploaded
from models.scheduling.key_usage import lock, room_of_upload
from models.settings import settings
from models.status import InspectionStatus, UploadStatus
from worker.ledger import ends, waiting
from worker.ledger.changes import Taken
from worker.ledger.retrying import HeldLease, LeasedLedger, retried

SUBJECTS: Mapping[str, type[Teacher] | type[Dataset] | type[File]] = {
    "teacher": Teacher,
    "dataset": Dataset,
    "file": File,
}


@dataclass(frozen=True)
class Canonical:
    """The canonical form of an upload in storage."""

    key: str
    size: int
    sha256: str
    parts: Sequence[Mapping[str, Any]] = ()
    """Its further files: `sha256` and `size` of each."""

    @property
    def whole(self) -> int:
        """Bytes of all files."""
        return self.size + sum(int(each["size"]) for each in self.parts)


class InspectionLedger(LeasedLedger):
    """The rows of one attempt at an inspection.

    Every method is one transaction, and raises `Taken` if the attempt does not hold the inspection any more. With a
    lease, methods are retried while the database is unavailable.
    """

    def __init__(self, inspection: Inspection, lease: HeldLease | None = None):
        super().__init__(lease)
        self.id = inspection.id
        self.attempt = inspection.attempt
        self.kind = inspection.kind
        self.subject_id = inspection.subject_id
        self.resolved = inspection.resolved
        self.request_id = inspection.request_id

    @retried
    def room(self) -> int:
        """Bytes that the canonical form of the upload may have."""
        with reading() as session:
            return self._room(session)

    def _room(self, session: Session, locked: bool = False) -> int:
        table: type[Any] = SUBJECTS[self.kind]
        owner = select(table.key_id, table.size).where(table.id == self.subject_id)
        key_id, sent = session.execute(owner).one()
        if locked:
            lock(session, key_id)
        return room_of_upload(session, key_id, sent or 0)

    @retried
    def note_hash(self, sha256: str) -> None:
        """Record the SHA-256 of the bytes as sent, which is known only after several ranges are joined."""
        table: type[Any] = SUBJECTS[self.kind]
        with transaction() as session:
            session.execute(update(table).where(table.id == self.subject_id).values(sha256=sha256))

    @retried
    def accept(self, findings: Mapping[str, Any], canonical: Canonical) -> bool:
        """Set the upload `ready`, and settle the jobs that wait for it. Returns False if its canonical form is not wanted: the
        upload was deleted meanwhile, or is rejected since the key's storage is used up."""
        with transaction() as session:
            if canonical.whole > (left := self._room(session, locked=True)):
                self._reject(session, _no_room(canonical.whole, left))
                accepted = False
            else:
                self._end(session, InspectionStatus.DONE)
                accepted = _set_status(
                    session, self.kind, self.subject_id, UploadStatus.READY, findings=dict(findings), problem=None,
                    blob_key=canonical.key, blob_size=canonical.whole, blob_sha256=canonical.sha256,
                    blob_parts=[dict(each) for each in canonical.parts] or None,
                    **_found(self.kind, findings),
                )  # fmt: skip
        waiting.settle_jobs_of(self.subject_id)
        return accepted

    @retried
    def reject(self, problem: ends.Error) -> None:
        """Set the upload `rejected`; the jobs that wait for it fail."""
        with transaction() as session:
            self._reject(session, problem)
        waiting.settle_jobs_of(self.subject_id)

    def _reject(self, session: Session, problem: ends.Error) -> None:
        self._end(session, InspectionStatus.FAILED, problem)
        _set_status(session, self.kind, self.subject_id, UploadStatus.REJECTED, problem=dict(problem))

    @retried
    def pass_check(self, facts: Mapping[str, Any]) -> None:
        """Record a passed check; a job that waits for it can be claimed."""
        with transaction() as session:
            self._end(session, InspectionStatus.DONE, facts=dict(facts))
            if self.kind == "job":
                waiting.pass_check(session, self.subject_id, facts)

    @retried
    def fail_check(self, error: ends.Error) -> None:
        """Record a failed check; a job that waits for it fails."""
        with transaction() as session:
            self._end(session, InspectionStatus.FAILED, error)
            if self.kind == "job":
                waiting.fail_check(session, self.subject_id, error)

    @retried
    def drop(self) -> None:
        """End an inspection whose subject needs none any more, such as a deleted upload."""
        with transaction() as session:
            self._end(session, InspectionStatus.DONE)

    @retried
    def release(self, delay_seconds: float) -> None:
        """Queue the inspection again, due after a delay. It does not count as a loss."""
        with transaction() as session:
            requeued = {"status": InspectionStatus.QUEUED, "due_at": now() + delay_seconds}
            self._change(session, **requeued, **ends.NO_LEASE)

    @retried
    def lose(self, error: ends.Error) -> None:
        """End an attempt whose engine crashed."""
        with transaction() as session:
            if lose(session, self.id, self.attempt, error) is None:
                raise Taken(self.id)

    def _end(self, session: Session, status: InspectionStatus, error: ends.Error | None = None, **more: Any) -> None:
        failed = dict(error) if error else None
        self._change(session, status=status, error=failed, finished_at=now(), **ends.NO_LEASE, **more)

    def _change(self, session: Session, **values: Any) -> None:
        changed = session.execute(
            update(Inspection)
            .where(Inspection.id == self.id, *_held_by(self.attempt))
            .values(**values)
            .execution_options(synchronize_session=False)
        )
        if changed.rowcount == 0:  # type: ignore[attr-defined]  # an UPDATE's result is a CursorResult
            raise Taken(self.id)


def _found(kind: str, findings: Mapping[str, Any]) -> dict[str, Any]:
    """What an inspection finds of a teacher that its user may have left open."""
    names = ("network", "options", "classes", "class_names", "input") if kind == "teacher" else ()
    return {name: findings[name] for name in names if name in findings}


def _no_room(size: int, left: int) -> dict[str, Any]:
    message = (
        f"the service would store the upload as {size} bytes, and {max(left, 0)} bytes of the key's storage are left"
    )
    return ends.error("quota_exceeded", message)


def _held_by(attempt: int) -> tuple[ColumnElement[bool], ...]:
    return Inspection.attempt == attempt, Inspection.status == InspectionStatus.RUNNING


def lose(
    session: Session,
    inspection_id: str,
    attempt: int,
    error: ends.Error,
    *conditions: ColumnElement[bool],
    skip_locked: bool = False,
) -> str | None:
    """End a lost attempt. The inspection is queued again, or fails after `most_lost_attempts` in a row; then its upload
    is rejected, or its job fails.

    Returns:
        The inspection's new status; None if this attempt does not hold it any more, or if `skip_locked` and another
        transaction has locked the row.
    """
    held = Inspection.id == inspection_id, *_held_by(attempt), *conditions
    inspection = session.scalar(select(Inspection).where(*held).with_for_update(skip_locked=skip_locked))
    if inspection is None:
        return None
    inspection.losses += 1
    inspection.lease_owner = inspection.lease_expires_at = inspection.woken_at = None
    inspection.error = dict(error)
    if inspection.losses < settings().most_lost_attempts:
        inspection.status = InspectionStatus.QUEUED
        return InspectionStatus.QUEUED
    inspection.status = InspectionStatus.FAILED
    inspection.finished_at = session.scalar(select(now()))
    session.flush()
    message = f"{inspection.losses} attempts at the inspection in a row were lost; the last one: {error['message']}"
    poison = ends.error("poison", message, str(error.get("hint", "")))
    if inspection.kind == "check":
        inspection.error = poison
    elif inspection.kind == "job":
        waiting.fail_check(session, inspection.subject_id, poison)
    else:
        _set_status(session, inspection.kind, inspection.subject_id, UploadStatus.REJECTED, problem=poison)
    return InspectionStatus.FAILED


def _set_status(session: Session, kind: str, subject_id: str, status: UploadStatus, **values: Any) -> bool:
    # the row still names the bytes as sent, so that they count until `sent_bytes` has deleted them
    table: type[Uploaded] = SUBJECTS[kind]
    changed = session.execute(
        update(table)
        .where(table.id == subject_id, table.status == UploadStatus.INSPECTING, table.deleted_at.is_(None))
        .values(status=status, updated_at=now(), **values)
        .returning(table.id)
        .execution_options(synchronize_session=False)
    ).one_or_none()
    if kind == "dataset":
        waiting.wake_teachers_of(session, subject_id)
    return changed is not None
