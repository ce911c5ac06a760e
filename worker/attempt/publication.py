"""What an attempt leaves in storage: its artifacts, published all or none, and its log."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import structlog

from models.database import AWAY
from models.storage.blobs import StorageError, storage
from worker.attempt.reporter import CONTENT_TYPE, NAME, log_key
from worker.attempt.retrying import persist
from worker.engine.folder import Folder
from worker.ledger.attempts import AttemptLedger, File

log = structlog.get_logger(__name__)


class Unpublishable(Exception):
    """What the engine left cannot be stored as it is."""


def store_artifacts(
    events: Sequence[Mapping[str, Any]], ledger: AttemptLedger, folder: Folder, attend: Callable[[], None]
) -> list[File]:
    """Upload all artifacts of an attempt, or leave none.

    Raises:
        Unpublishable: a file is not what the engine said, or a disk is in the way.
        StorageError: the storage stayed away.
        Whatever `attend` raises.
    """
    files: list[File] = []
    try:
        for event in events:
            files.append(persist(attend, lambda event=event: _store(ledger, folder, event)))  # type: ignore[misc]
        attend()
    except BaseException as error:
        discard_unpublished(files, ledger)
        if isinstance(error, ValueError | KeyError | OSError):
            raise Unpublishable(f"the artifacts could not be stored: {error}") from error
        raise
    return files


def _store(ledger: AttemptLedger, folder: Folder, event: Mapping[str, Any]) -> File:
    name, content_type = event["name"], event["content_type"]
    if not NAME.fullmatch(name) or not CONTENT_TYPE.fullmatch(content_type):
        raise ValueError(f"the engine names an artifact {name!r} of type {content_type!r}")
    key = f"jobs/{ledger.job_id}/{ledger.number}/{name}"
    stored = storage().put(key, folder.inside(event["path"]))
    if stored.sha256 != event["sha256"]:
        storage().delete(key)
        raise ValueError(f"{name} has changed since the engine wrote it")
    return File(name, key, content_type, stored.size, stored.sha256)


def discard_unpublished(files: Sequence[File], ledger: AttemptLedger) -> None:
    """Remove these from storage, unless the attempt has published them."""
    try:
        if not files or ledger.published():
            return
        for file in files:
            storage().delete(file.key)
    except (StorageError, *AWAY) as error:
        log.warning("artifacts_left_behind", error=str(error).partition("\n")[0])


def store_log(ledger: AttemptLedger, path: Path) -> str | None:
    """Upload an engine's log; its key, or None if there is nothing in it or it could not be stored."""
    key = log_key(ledger)
    try:
        return key if path.stat().st_size and storage().put(key, path) else None
    except (StorageError, OSError) as error:
        log.warning("log_not_stored", error=str(error))
        return None
