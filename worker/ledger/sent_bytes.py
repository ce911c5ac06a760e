"""Deleting the bytes of uploads as they were sent, once the inspection has ended; their rows name them until then."""

from collections.abc import Sequence
from typing import Any

import structlog
from sqlalchemy import ColumnElement, select, update

from models.database import UNAVAILABLE, now, reading, transaction
from models.status import UploadStatus
from models.storage.errors import StorageError
from models.storage.opening import storage
from worker.ledger.inspections import SUBJECTS

INSPECTED = (UploadStatus.READY, UploadStatus.REJECTED)
AT_ONCE = 100
RECENT_SECONDS = 3600.0
"""A sweep looks at uploads that have changed since then. The scan for orphans removes what is left of older ones."""
log = structlog.get_logger(__name__)


def clear() -> int:
    """Delete the bytes of recently inspected uploads, which a worker that crashed has left; returns of how many."""
    return sum(
        _clear(
            table, table.status.in_(INSPECTED), table.deleted_at.is_(None), table.updated_at > now() - RECENT_SECONDS
        )
        for table in SUBJECTS.values()
    )


def clear_of(kind: str, upload_id: str) -> None:
    """Delete the bytes of one upload if it is inspected or deleted. If database or storage do not answer, the sweep does it."""
    table: type[Any] = SUBJECTS[kind]
    try:
        _clear(table, table.status.in_(INSPECTED) | table.deleted_at.is_not(None), table.id == upload_id)
    except UNAVAILABLE as error:
        log.warning("sent_bytes_left_to_the_sweep", upload=upload_id, error=str(error).partition("\n")[0])


def _clear(table: type[Any], *conditions: ColumnElement[bool]) -> int:
    with reading() as session:
        stored = table.upload_key.is_not(None) | table.upload_parts.is_not(None)
        query = select(table.id, table.upload_key, table.upload_parts).where(*conditions, stored).limit(AT_ONCE)
        found: Sequence[Any] = session.execute(query).all()
    for upload_id, key, parts in found:
        try:
            for each in [key] if key else [part["key"] for part in parts]:
                storage().delete(each)
        except StorageError as error:
            log.warning("sent_bytes_left_to_the_sweep", upload=upload_id, error=str(error))
            continue
        with transaction() as session:
            ended = table.status.in_(INSPECTED) | table.deleted_at.is_not(None)
            stored = table.upload_key == key if key else table.upload_parts.is_not(None)
            session.execute(
                update(table).where(table.id == upload_id, ended, stored).values(upload_key=None, upload_parts=None)
            )
    return len(found)
