"""What is removed when its time is over: docs/operations.md has the table.

Rows go first, then their blobs: a process that dies in between leaves blobs that no row names, which the look for orphans
finds. Every pass asks an index for what is due and takes some of it, so that it costs next to nothing when nothing is.
"""

import random
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import structlog
from sqlalchemy import ColumnElement, Select, delete, select, tuple_, update

from models.database import now, once_now, reading, transaction
from models.idempotency import KEPT_SECONDS
from models.records import (
    Artifact,
    Attempt,
    Dataset,
    Event,
    File,
    Idempotency,
    Inspection,
    Job,
    Metric,
    Preview,
    Teacher,
    WebhookDelivery,
)  # fmt: skip
from models.settings import settings
from models.status import InspectionStatus, UploadStatus
from models.storage import StorageError, storage
from worker.ledger import waiting
from worker.ledger.claims import clock

AT_ONCE = 100
"""Jobs, or things of another kind, that one pass takes."""
ROWS_AT_ONCE = 5000
"""Events that one transaction removes."""
REST_SECONDS = 60.0
INSPECTIONS_KEPT_SECONDS = 7 * 24 * 3600.0
UPLOADS: tuple[type[Teacher] | type[Dataset] | type[File], ...] = (Teacher, Dataset, File)
log = structlog.get_logger(__name__)


class Retention:
    """A pass about once a minute, and at once again while there is more; workers keep to minutes of their own."""

    def __init__(self) -> None:
        self._rested_at = clock() + random.uniform(0, REST_SECONDS)

    def clear(self) -> int:
        """Remove some of what is due; says how much."""
        if clock() < self._rested_at:
            return 0
        self._rested_at = clock() + REST_SECONDS
        removed = clear()
        if any(count >= AT_ONCE for count in removed.values()):
            self._rested_at = clock()
        return sum(removed.values())


def clear() -> dict[str, int]:
    """One pass; says how much of what was removed. What fails leaves the rest to be done."""
    removed: dict[str, int] = {}
    for name, duty in DUTIES.items():
        try:
            removed[name] = duty()
        except Exception:
            log.exception("retention_failed", duty=name)
        if removed.get(name):
            log.info("retention_removed", what=name, count=removed[name])
    return removed


def due_artifacts() -> Select[str]:
    """Ids of jobs whose artifacts are due; as often as there are artifacts."""
    old = Artifact.created_at < _before(settings().keep_artifacts_days)
    return select(Artifact.job_id).where(old).order_by(Artifact.created_at)


def due_previews() -> Select[str]:
    """Ids of previews of jobs that ended long ago."""
    before = _before(settings().keep_previews_days)
    ended = select(Preview.id).join(Job, Job.id == Preview.job_id).where(Job.finished_at < before)
    return ended.where(Preview.created_at < before).order_by(Preview.created_at)


def due_logs() -> Select[str, int]:
    """Jobs and numbers of attempts whose logs are due."""
    old = Attempt.log_key.is_not(None), Attempt.ended_at < _before(settings().keep_previews_days)
    return select(Attempt.job_id, Attempt.number).where(*old).order_by(Attempt.ended_at)


def due_histories() -> Select[str]:
    """Ids of jobs whose events and metrics are due."""
    left = Job.deleted_at.is_(None), Job.history_removed_at.is_(None)
    old = Job.finished_at < _before(settings().keep_history_days)
    return select(Job.id).where(*left, old).order_by(Job.finished_at)


def due_uploads(table: type[Teacher] | type[Dataset] | type[File], status: UploadStatus, days: float) -> Select[str]:
    """Ids of uploads that have been in a state for so long."""
    old = table.status == status, table.updated_at < _before(days), table.deleted_at.is_(None)
    return select(table.id).where(*old).order_by(table.updated_at)


def due_promises() -> Select[str, str]:
    """Idempotency keys that no longer hold."""
    old = Idempotency.created_at < once_now() - KEPT_SECONDS
    return select(Idempotency.key_id, Idempotency.idempotency_key).where(old).order_by(Idempotency.created_at)


def due_deliveries() -> Select[str]:
    """Ids of webhook deliveries that have been over for long."""
    old = WebhookDelivery.finished_at < _before(settings().keep_deliveries_days)
    return select(WebhookDelivery.id).where(old).order_by(WebhookDelivery.finished_at)


def due_inspections() -> Select[str]:
    """Ids of inspections that have been over for long."""
    over = Inspection.status.in_((InspectionStatus.DONE, InspectionStatus.FAILED))
    old = Inspection.finished_at < once_now() - INSPECTIONS_KEPT_SECONDS
    return select(Inspection.id).where(old, over).order_by(Inspection.finished_at)


def _before(days: float) -> ColumnElement[float]:
    return once_now() - days * 24 * 3600.0


def _some(due: Select[*tuple[Any, ...]]) -> Sequence[Any]:
    with reading() as session:
        return session.execute(due.limit(AT_ONCE)).all()


def _ids(due: Select[str]) -> list[str]:
    return list(dict.fromkeys(row[0] for row in _some(due)))


def _remove_artifacts() -> int:
    jobs = _ids(due_artifacts()) if settings().keep_artifacts_days else []
    for job_id in jobs:
        with transaction() as session:
            gone = {"artifacts_removed_at": now(), "version": Job.version + 1}
            session.execute(update(Job).where(Job.id == job_id).values(**gone))  # whoever comes second waits here
            keys = session.scalars(delete(Artifact).where(Artifact.job_id == job_id).returning(Artifact.key)).all()
        _discard(keys)
    return len(jobs)


def _remove_previews() -> int:
    found = _ids(due_previews()) if settings().keep_previews_days else []
    if found:
        with transaction() as session:
            removed = delete(Preview).where(Preview.id.in_(found)).returning(Preview.key)
            keys = session.scalars(removed).all()
        _discard(keys)
    return len(found)


def _remove_logs() -> int:
    found = [tuple(row) for row in _some(due_logs())] if settings().keep_previews_days else []
    keys: list[str | None] = []
    for job_id, number in found:
        mine = Attempt.job_id == job_id, Attempt.number == number
        with transaction() as session:
            keys.append(session.scalar(select(Attempt.log_key).where(*mine)))
            session.execute(update(Attempt).where(*mine).values(log_key=None))
    _discard(key for key in keys if key)
    return len(found)


def _remove_histories() -> int:
    jobs = _ids(due_histories()) if settings().keep_history_days else []
    for job_id in jobs:
        with reading() as session:
            events = session.scalars(select(Job.event_seq).where(Job.id == job_id)).one()
            names = session.scalars(select(Metric.name).where(Metric.job_id == job_id).distinct()).all()
        for first in range(1, events + 1, ROWS_AT_ONCE):
            with transaction() as session:
                some = Event.seq.between(first, first + ROWS_AT_ONCE - 1)
                session.execute(delete(Event).where(Event.job_id == job_id, some))
        for name in names:
            with transaction() as session:
                session.execute(delete(Metric).where(Metric.job_id == job_id, Metric.name == name))
        with transaction() as session:
            gone = {"history_removed_at": now(), "version": Job.version + 1}
            session.execute(update(Job).where(Job.id == job_id).values(**gone))
    return len(jobs)


def _expire_uploads(status: UploadStatus, days: float, problem: dict[str, Any] | None) -> int:
    if not days:
        return 0
    expired = 0
    for table in UPLOADS:
        found = _ids(due_uploads(table, status, days))
        for upload_id in found:
            still = table.id == upload_id, table.status == status, table.deleted_at.is_(None)
            with transaction() as session:
                values = {"deleted_at": now()} | ({"problem": problem} if problem else {})
                session.execute(update(table).where(*still).values(**values))
            waiting.settle_jobs_of(upload_id)
        expired += len(found)
    return expired


def _expire_unsent() -> int:
    days = settings().keep_unsent_days
    message = f"its bytes were not sent within {days:g} days"
    return _expire_uploads(UploadStatus.WAITING, days, {"code": "never_sent", "message": message})


def _expire_rejected() -> int:
    return _expire_uploads(UploadStatus.REJECTED, settings().keep_rejected_days, None)


def _forget_promises() -> int:
    found = [tuple(row) for row in _some(due_promises())]
    if found:
        with transaction() as session:
            named = tuple_(Idempotency.key_id, Idempotency.idempotency_key).in_(found)
            session.execute(delete(Idempotency).where(named, Idempotency.created_at < now() - KEPT_SECONDS))
    return len(found)


def _forget_deliveries() -> int:
    found = _ids(due_deliveries()) if settings().keep_deliveries_days else []
    if found:
        with transaction() as session:
            over = WebhookDelivery.id.in_(found), WebhookDelivery.finished_at.is_not(None)
            session.execute(delete(WebhookDelivery).where(*over))
    return len(found)


def _forget_inspections() -> int:
    found = _ids(due_inspections())
    if found:
        with transaction() as session:
            session.execute(delete(Inspection).where(Inspection.id.in_(found)))
    return len(found)


def _discard(keys: Iterable[str]) -> None:
    for key in keys:
        try:
            storage().delete(key)
        except StorageError as error:
            log.warning("blob_left_behind", key=key, error=str(error))  # the look for orphans finds it


DUTIES: dict[str, Callable[[], int]] = {
    "artifacts": _remove_artifacts,
    "previews": _remove_previews,
    "logs": _remove_logs,
    "histories": _remove_histories,
    "unsent": _expire_unsent,
    "rejected": _expire_rejected,
    "promises": _forget_promises,
    "deliveries": _forget_deliveries,
    "inspections": _forget_inspections,
}
