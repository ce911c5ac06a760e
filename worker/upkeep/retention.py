"""Retention: removes what is older than its retention time (table in docs/operations.md).

Rows are removed before their blobs. If the process crashes in between, the blobs are orphans, and the scan for orphans
removes them. Every pass finds due rows with an index and takes only some of them, so a pass without due rows is cheap.
"""

import random
from collections.abc import Callable, Iterable, Sequence
from typing import Any, TypeAlias

import structlog
from sqlalchemy import ColumnElement, Select, delete, select, tuple_, update
from sqlalchemy.orm import InstrumentedAttribute

from models.database import now, reading, transaction
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
from models.spec.students import taught_by
from models.status import UploadStatus
from models.storage.errors import StorageError
from models.storage.opening import storage
from worker.clock import clock
from worker.ledger import waiting

AT_ONCE = 100
"""Maximum number of jobs, or of rows of another kind, per pass."""
ROWS_AT_ONCE = 5000
"""Maximum number of events that one transaction removes."""
REST_SECONDS = 60.0
DAY = 24 * 3600.0
INSPECTIONS_KEPT_DAYS = 7
Due: TypeAlias = Select[*tuple[Any, ...]]
UPLOADS: tuple[type[Teacher] | type[Dataset] | type[File], ...] = (Teacher, Dataset, File)
log = structlog.get_logger(__name__)


class Retention:
    """Runs a pass about once a minute, and at once again if more is due. The first pass is at a random time, so that
    workers do not all run theirs together."""

    def __init__(self) -> None:
        self._next_at = clock() + random.uniform(0, REST_SECONDS)

    def clear(self) -> int:
        """Remove some of what is due; returns how much."""
        if clock() < self._next_at:
            return 0
        self._next_at = clock() + REST_SECONDS
        removed = clear()
        if any(count >= AT_ONCE for count in removed.values()):
            self._next_at = clock()
        return sum(removed.values())


def clear() -> dict[str, int]:
    """One pass; returns the number of removed items by kind. An error with one kind does not affect the others."""
    removed: dict[str, int] = {}
    for name, duty in DUTIES.items():
        try:
            removed[name] = duty()
        except Exception:
            log.exception("retention_failed", duty=name)
        if removed.get(name):
            log.info("retention_removed", what=name, count=removed[name])
    return removed


def due_artifacts() -> Due:
    """Ids of jobs whose artifacts are due, once for each artifact."""
    return _oldest(Artifact.created_at, settings().keep_artifacts_days, Artifact.job_id)


def due_previews() -> Due:
    """Ids of previews that are due."""
    return _oldest(Preview.created_at, settings().keep_previews_days, Preview.id)


def due_logs() -> Due:
    """Job ids and numbers of attempts whose logs are due."""
    named = Attempt.job_id, Attempt.number
    return _oldest(Attempt.ended_at, settings().keep_previews_days, *named, where=[Attempt.log_key.is_not(None)])


def due_histories() -> Due:
    """Ids of jobs whose events and metrics are due."""
    left = [Job.deleted_at.is_(None), Job.history_removed_at.is_(None)]
    return _oldest(Job.finished_at, settings().keep_history_days, Job.id, where=left)


def due_uploads(table: type[Teacher] | type[Dataset] | type[File], status: UploadStatus, days: float) -> Due:
    """Ids of uploads that have had a status for longer than `days`."""
    return _oldest(table.updated_at, days, table.id, where=[table.status == status, table.deleted_at.is_(None)])


def due_idempotency_keys() -> Due:
    """Idempotency keys that have expired."""
    return _oldest(Idempotency.created_at, KEPT_SECONDS / DAY, Idempotency.key_id, Idempotency.idempotency_key)


def due_deliveries() -> Due:
    """Ids of finished webhook deliveries that are due."""
    return _oldest(WebhookDelivery.finished_at, settings().keep_deliveries_days, WebhookDelivery.id)


def due_inspections() -> Due:
    """Ids of finished inspections that are due."""
    return _oldest(Inspection.finished_at, INSPECTIONS_KEPT_DAYS, Inspection.id)


def _oldest(
    at: InstrumentedAttribute[Any],
    days: float,
    *columns: InstrumentedAttribute[Any],
    where: Sequence[ColumnElement[bool]] = (),
) -> Due:
    """The oldest rows, as far as they are due.

    The inner query takes the oldest rows, the outer one compares their age. This reads at most `AT_ONCE` entries of the
    index, whatever number of due rows the database's planner estimates.
    """
    query = select(*columns, at.label("at")).where(*where, at.is_not(None)).order_by(at).limit(AT_ONCE)
    oldest = query.subquery()
    return select(*(column for column in oldest.c if column.key != "at")).where(oldest.c.at < now() - days * DAY)


def _some(due: Due) -> Sequence[Any]:
    with reading() as session:
        return session.execute(due).all()


def _ids(due: Due) -> list[str]:
    return list(dict.fromkeys(row[0] for row in _some(due)))


def _remove_artifacts() -> int:
    jobs = _ids(due_artifacts()) if settings().keep_artifacts_days else []
    for job_id in jobs:
        with transaction() as session:
            session.execute(select(Job.id).where(Job.id == job_id).with_for_update())  # a concurrent pass waits here
            if session.scalar(select(Job.id).where(taught_by(job_id)).limit(1)) is not None:
                continue  # an unfinished job uses its student as a teacher
            removed = {"artifacts_removed_at": now(), "version": Job.version + 1}
            session.execute(update(Job).where(Job.id == job_id).values(**removed))
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
            session.execute(update(Job).where(Job.id == job_id).values(version=Job.version + 1))  # its link is gone
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
            removed = {"history_removed_at": now(), "version": Job.version + 1}
            session.execute(update(Job).where(Job.id == job_id).values(**removed))
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
                waiting.wake_teachers_of(session, upload_id)
            waiting.settle_jobs_of(upload_id)
        expired += len(found)
    return expired


def _expire_unsent() -> int:
    days = settings().keep_unsent_days
    message = f"the bytes of the upload were not sent within {days:g} days"
    return _expire_uploads(UploadStatus.WAITING, days, {"code": "never_sent", "message": message})


def _expire_rejected() -> int:
    return _expire_uploads(UploadStatus.REJECTED, settings().keep_rejected_days, None)


def _remove_idempotency_keys() -> int:
    found = [tuple(row) for row in _some(due_idempotency_keys())]
    if found:
        with transaction() as session:
            named = tuple_(Idempotency.key_id, Idempotency.idempotency_key).in_(found)
            session.execute(delete(Idempotency).where(named, Idempotency.created_at < now() - KEPT_SECONDS))
    return len(found)


def _remove_deliveries() -> int:
    found = _ids(due_deliveries()) if settings().keep_deliveries_days else []
    if found:
        with transaction() as session:
            finished = WebhookDelivery.id.in_(found), WebhookDelivery.finished_at.is_not(None)
            session.execute(delete(WebhookDelivery).where(*finished))
    return len(found)


def _remove_inspections() -> int:
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
            log.warning("blob_left_behind", key=key, error=str(error))  # the scan for orphans removes it


DUTIES: dict[str, Callable[[], int]] = {
    "artifacts": _remove_artifacts,
    "previews": _remove_previews,
    "logs": _remove_logs,
    "histories": _remove_histories,
    "unsent": _expire_unsent,
    "rejected": _expire_rejected,
    "idempotency_keys": _remove_idempotency_keys,
    "deliveries": _remove_deliveries,
    "inspections": _remove_inspections,
}
