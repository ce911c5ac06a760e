"""What an attempt leaves in storage at its end: its artifacts, published all or none, and its log."""

from collections.abc import Sequence
from pathlib import Path

import structlog

from models.database import AWAY
from models.storage import keys
from models.storage.errors import StorageError
from models.storage.opening import storage
from worker.attempt.attempt_storage import AttemptStorage
from worker.attempt.event_fields import file_of
from worker.attempt.inputs import StorageAway
from worker.engine.engine_process import Event
from worker.engine.folder import Folder
from worker.ledger.attempts import AttemptLedger, File

log = structlog.get_logger(__name__)


class Unpublishable(Exception):
    """What the engine left cannot be stored as it is."""


def store_artifacts(
    events: Sequence[Event], ledger: AttemptLedger, folder: Folder, storage: AttemptStorage
) -> list[File]:
    """Upload all artifacts of an attempt, or leave none.

    Raises:
        Unpublishable: a file is not what the engine said, or a disk is in the way.
        StorageAway: the storage stayed away.
        Whatever the storage's `check` raises.
    """
    files: list[File] = []
    try:
        for event in events:
            files.append(_store(ledger, folder, storage, event))
        storage.check()
    except BaseException as error:
        discard_unpublished(files, ledger)
        if isinstance(error, StorageError):
            raise StorageAway(f"the artifacts could not be stored: {error}") from error
        if isinstance(error, ValueError | KeyError | OSError):
            raise Unpublishable(f"the artifacts could not be stored: {error}") from error
        raise
    return files


def _store(ledger: AttemptLedger, folder: Folder, storage: AttemptStorage, event: Event) -> File:
    name, content_type = file_of(event)
    key = keys.artifact(ledger.job_id, ledger.number, name)
    stored = storage.put(key, folder.inside(event["path"]))
    if stored.sha256 != event["sha256"]:
        storage.delete(key)
        raise ValueError(f"{name} has changed since the engine wrote it")
    return File(name, key, content_type, stored.size, stored.sha256)


def discard_unpublished(files: Sequence[File], ledger: AttemptLedger) -> None:
    """Remove these from storage, unless the attempt has published them; also when the job is another attempt's by now."""
    try:
        if not files or ledger.published():
            return
        for file in files:
            storage().delete(file.key)
    except (StorageError, *AWAY) as error:
        log.warning("artifacts_left_behind", error=str(error).partition("\n")[0])


def store_log(ledger: AttemptLedger, storage: AttemptStorage, path: Path) -> str | None:
    """Upload an engine's log; its key, or None if there is nothing in it or it could not be stored."""
    key = keys.engine_log(ledger.job_id, ledger.number)
    try:
        return key if path.stat().st_size and storage.put(key, path) else None
    except (StorageError, OSError) as error:
        log.warning("log_not_stored", error=str(error))
        return None
