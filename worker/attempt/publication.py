"""Uploads at the end of an attempt: its artifacts, all or none, and its log."""

from collections.abc import Sequence
from pathlib import Path

import structlog

from models.database import UNAVAILABLE
from models.storage import keys
from models.storage.errors import StorageError
from models.storage.opening import storage
from worker.attempt.attempt_storage import AttemptStorage
from worker.attempt.event_fields import file_of
from worker.attempt.inputs import StorageUnavailable
from worker.attempt.tensorboard import CONTENT_TYPE, event_file
from worker.engine.engine_process import Event
from worker.engine.folder import Folder
from worker.ledger.attempts import AttemptLedger, File

log = structlog.get_logger(__name__)


class Unpublishable(Exception):
    """An artifact is invalid or cannot be read."""


def store_artifacts(
    events: Sequence[Event], ledger: AttemptLedger, folder: Folder, storage: AttemptStorage
) -> list[File]:
    """Upload all artifacts of an attempt, and its event file for TensorBoard. On an error none are left. Exceptions of the
    storage's `check` are raised too.

    Raises:
        Unpublishable: a file does not match the engine's event, or cannot be read.
        StorageUnavailable: the storage was unavailable for too long.
    """
    files: list[File] = []
    try:
        for event in events:
            files.append(_store(ledger, folder, storage, event))
        files += _store_event_file(ledger, storage)
        storage.check()
    except BaseException as error:
        discard_unpublished(files, ledger)
        if isinstance(error, StorageError):
            raise StorageUnavailable(f"the artifacts could not be stored: {error}") from error
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
        raise ValueError(f"{name} has another SHA-256 than the engine reported")
    return File(name, key, content_type, stored.size, stored.sha256)


def _store_event_file(ledger: AttemptLedger, storage: AttemptStorage) -> list[File]:
    """The names of the engine's artifacts have no `/`, so this one has a key of its own."""
    found = event_file(ledger)
    if found is None:
        return []
    name, data = found
    key = keys.artifact(ledger.job_id, ledger.number, name)
    stored = storage.put(key, data)
    return [File(name, key, CONTENT_TYPE, stored.size, stored.sha256)]


def discard_unpublished(files: Sequence[File], ledger: AttemptLedger) -> None:
    """Remove these files from storage, unless this attempt has published them. Another attempt may hold the job by
    now."""
    try:
        if not files or ledger.published():
            return
        for file in files:
            storage().delete(file.key)
    except (StorageError, *UNAVAILABLE) as error:
        log.warning("artifacts_left_behind", error=str(error).partition("\n")[0])


def store_log(ledger: AttemptLedger, storage: AttemptStorage, path: Path) -> str | None:
    """Upload an engine's log; returns its key, or None if it is empty or could not be stored."""
    key = keys.engine_log(ledger.job_id, ledger.number)
    try:
        return key if path.stat().st_size and storage.put(key, path) else None
    except (StorageError, OSError) as error:
        log.warning("log_not_stored", error=str(error))
        return None
