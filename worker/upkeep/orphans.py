"""Orphans: blobs that no row names, left by a process that crashed between a write to storage and its commit."""

from collections.abc import Iterable, Iterator
from itertools import islice

import structlog
from sqlalchemy import ColumnElement, exists, select
from sqlalchemy.orm import InstrumentedAttribute, Session

from models.database import now, reading
from models.records import Artifact, Attempt, Checkpoint, Dataset, File, Job, Preview, Teacher
from models.settings import settings
from models.status import JobStatus, UploadStatus
from models.storage import keys
from models.storage.blobs import Entry
from models.storage.errors import StorageError
from models.storage.opening import storage
from worker.clock import clock

REST_SECONDS = 6 * 3600.0
"""Maximum pause between two scans of storage."""
PAGE = 500
OPEN = (UploadStatus.WAITING, UploadStatus.INSPECTING)
UPLOADS: tuple[type[Teacher] | type[Dataset] | type[File], ...] = (Teacher, Dataset, File)
log = structlog.get_logger(__name__)


class Orphans:
    """Scans storage, at most `PAGE` blobs per sweep, so that sweeps stay short."""

    def __init__(self) -> None:
        self._entries: Iterator[Entry] | None = None
        self._next_at = clock()

    def clear(self) -> int:
        """Remove the orphans among the next blobs; returns how many."""
        if self._entries is None:
            if clock() < self._next_at:
                return 0
            _discard_partial()
            self._entries = (entry for prefix in keys.PREFIXES for entry in storage().list(prefix))
        entries, self._entries = self._entries, None  # an error below ends this scan
        page = list(islice(entries, PAGE))
        if len(page) == PAGE:
            self._entries = entries
        else:
            self._next_at = clock() + min(REST_SECONDS, _kept_seconds() / 4)
        return clear_orphans(page)


def _discard_partial() -> None:
    try:
        if discarded := storage().discard_partial(_kept_seconds()):
            log.warning("partial_blobs_removed", count=discarded)
    except StorageError as error:  # the S3 server may not permit it
        log.warning("partial_blobs_not_removed", error=str(error))


def clear_orphans(entries: Iterable[Entry]) -> int:
    """Remove those of these blobs that are old and that no row names; returns how many."""
    with reading() as session:
        before = session.scalars(select(now())).one() - _kept_seconds()
        old = [entry.key for entry in entries if entry.modified < before]
        orphans = _unnamed(session, old) if old else []
    for key in orphans:
        storage().delete(key)
        log.warning("orphan_removed", key=key)
    return len(orphans)


def _kept_seconds() -> float:
    # a younger blob may still get a row: from a pending commit, or from an inspection that holds its lease
    return max(settings().keep_orphans_hours * 3600, 2 * settings().lease_seconds)


def _unnamed(session: Session, found_keys: list[str]) -> list[str]:
    owners = {key: keys.owner(key) for key in found_keys}
    ids = set(owners.values())
    named: set[str | None] = set()
    for table in UPLOADS:
        mine = table.id.in_(ids), _kept(table)
        named.update(session.scalars(select(table.blob_key).where(*mine)))
        parts = select(table.id, table.blob_parts).where(*mine, table.blob_parts.is_not(None))
        for identifier, found in session.execute(parts):
            named.update(keys.canonical_part(identifier, part["sha256"]) for part in found)
        # the bytes as sent are not needed any more once they are inspected (worker/ledger/sent_bytes.py)
        named.update(session.scalars(select(table.upload_key).where(*mine, table.status == UploadStatus.INSPECTING)))
        open_parts = *mine, table.status.in_(OPEN), table.upload_parts.is_not(None)
        for sent in session.scalars(select(table.upload_parts).where(*open_parts)):
            named.update(part["key"] for part in sent)
    named.update([keys.samples(key) for key in named if key])
    kept = Job.id.in_(ids) & _kept(Job)
    for column, of_job in (
        (Artifact.key, Artifact.job_id),
        (Preview.key, Preview.job_id),
        (Attempt.log_key, Attempt.job_id),
    ):
        named.update(session.scalars(select(column).join(Job, Job.id == of_job).where(kept)))
    final = Job.status.in_([status for status in JobStatus if status.final])
    resumable = exists().where(Checkpoint.job_id == Job.id)  # the parts are removed together with the checkpoints
    open_jobs = set(session.scalars(select(Job.id).where(kept, ~final | resumable)))
    return [key for key, owner in owners.items() if owner is not None and key not in named and owner not in open_jobs]


def _kept(table: type[Teacher] | type[Dataset] | type[File] | type[Job]) -> ColumnElement[bool]:
    deleted: InstrumentedAttribute[float | None] = table.deleted_at
    return deleted.is_(None)
