"""Uploads of checkpoints from an engine's folder. A newer checkpoint supersedes one whose upload is not finished."""

import math
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import structlog

from models.storage import keys
from models.storage.errors import Exists, Unavailable
from worker.attempt.attempt_storage import AttemptStorage
from worker.attempt.event_fields import Malformed, parts_of, step_of
from worker.attempt.lease import Lease
from worker.clock import clock
from worker.engine.folder import Folder
from worker.ledger.attempts import AttemptLedger

log = structlog.get_logger(__name__)


class Superseded(Exception):
    """There is a newer checkpoint, or checkpoints are not needed any more."""


class CheckpointUpload:
    """One checkpoint: its manifest, and hard links to its parts."""

    def __init__(self, manifest: dict[str, Any], folder: Folder):
        step_of(manifest["step"])
        self.manifest, self.parts = manifest, parts_of(manifest)
        self.files = {sha256: _keep(sha256, folder) for sha256 in self.parts}

    def forget(self) -> None:
        """Remove the hard links."""
        for path in self.files.values():
            path.unlink(missing_ok=True)


def _keep(sha256: str, folder: Folder) -> Path:
    # a hard link, because the engine removes parts that its newest checkpoints do not name
    kept = folder.path / "pending" / f"{sha256}.{os.urandom(4).hex()}"
    os.link(folder.inside(f"checkpoints/{sha256}"), kept)
    return kept


class CheckpointUploads:
    """Stores an attempt's checkpoints, one after the other. While the storage is unavailable, an upload is retried
    without limit."""

    def __init__(self, ledger: AttemptLedger, folder: Folder, lease: Lease):
        self._ledger = ledger
        self._folder = folder
        self._lease = lease
        self._newest: CheckpointUpload | None = None
        self._stored: set[str] = set()
        self._deadline = math.inf

    def begin(self, manifest: dict[str, Any]) -> CheckpointUpload:
        """Link a checkpoint's files before the engine removes them. It supersedes all older ones.

        Raises:
            Malformed: the manifest is invalid.
            OSError, ValueError: a part does not exist.
        """
        self._newest = CheckpointUpload(manifest, self._folder)
        return self._newest

    def abandon(self) -> None:
        """Give up all uploads: checkpoints are not needed any more."""
        self._newest = None

    def limit_retries(self, seconds: float) -> None:
        """Retry for at most this long from now on: the attempt is ending."""
        self._deadline = clock() + seconds

    def store(self, upload: CheckpointUpload) -> None:
        """Upload the new parts, write the checkpoint's row, and remove the parts that no row names any more.

        Raises:
            Taken: the lease was lost.
            Unavailable: the storage is unavailable, and the attempt is ending.
            Malformed: the SHA-256 of a part is not its name.
        """
        storage = AttemptStorage(lambda: self._check(upload), math.inf)
        try:
            for sha256, size in upload.parts.items():
                self._store_part(storage, sha256, size, upload.files)
            unnamed = self._ledger.checkpoint(upload.manifest)
        except Superseded:
            log.info("checkpoint_superseded", step=upload.manifest["step"])
            return
        finally:
            upload.forget()
        self._stored -= set(unnamed)
        cleaning = AttemptStorage(self._lease.check_held, 0.0)
        for sha256 in unnamed:
            cleaning.delete(keys.checkpoint_part(self._ledger.job_id, sha256))

    def _check(self, upload: CheckpointUpload) -> None:
        self._lease.check_held()
        if upload is not self._newest:
            raise Superseded
        if clock() > self._deadline:
            raise Unavailable("checkpoint", "the storage does not respond, and this attempt is ending")

    def _store_part(self, storage: AttemptStorage, sha256: str, size: int, files: Mapping[str, Path]) -> None:
        key = keys.checkpoint_part(self._ledger.job_id, sha256)
        if sha256 in self._stored:
            return
        if storage.size(key) != size:
            path = files[sha256]
            try:
                stored = storage.put(key, path, create_only=True)
            except Exists:
                stored = storage.put(key, path)  # a part of another size exists: an earlier write was incomplete
            if (stored.size, stored.sha256) != (size, sha256):
                storage.delete(key)
                raise Malformed(f"the SHA-256 of the part {sha256} is not its name")
        self._stored.add(sha256)
