"""Uploads while the engine runs: checkpoints, previews and the log.

One thread uploads, so that a slow storage does not delay events. A failed upload does not end the run; the next may
succeed.
"""

import math
import threading
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import structlog

from models.database import UNAVAILABLE
from models.settings import settings
from models.storage import keys
from models.storage.errors import StorageError
from worker.attempt.attempt_storage import AttemptStorage
from worker.attempt.checkpoint_uploads import CheckpointUploads
from worker.attempt.event_fields import Malformed, file_of, step_of
from worker.attempt.lease import Lease
from worker.clock import clock
from worker.engine.engine_process import Event
from worker.engine.folder import Folder
from worker.ledger.attempts import AttemptLedger, File
from worker.ledger.changes import Taken

log = structlog.get_logger(__name__)


class Uploads:
    """The uploads of one attempt, in order."""

    def __init__(self, ledger: AttemptLedger, folder: Folder, lease: Lease):
        self._ledger = ledger
        self._folder = folder
        self._lease = lease
        self._storage = AttemptStorage(lease.check_held, 0.0)
        self._checkpoints = CheckpointUploads(ledger, folder, lease)
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="upload")
        self._log_stored = 0
        self._log_checked_at = -math.inf
        self._log_upload = threading.Lock()

    def checkpoint(self, manifest: dict[str, Any]) -> None:
        """Store a checkpoint; older ones that are not stored yet are skipped.

        Raises:
            Malformed: the manifest is invalid.
            OSError, ValueError: a part does not exist.
        """
        upload = self._checkpoints.begin(manifest)
        self._submit("checkpoint", lambda: self._checkpoints.store(upload))

    def preview(self, event: Event) -> None:
        """Store and publish a preview.

        Raises:
            Malformed, ValueError: the event does not name a valid file.
        """
        name, content_type = file_of(event)
        step, path = step_of(event["step"]), self._folder.inside(event["path"])
        self._submit("preview", lambda: self._store_preview(path, name, content_type, step))

    def _store_preview(self, path: Path, name: str, content_type: str, step: int) -> None:
        key = keys.preview(self._ledger.job_id, self._ledger.number, step, name)
        stored = self._storage.put(key, path)
        replaced = self._ledger.preview(File(name, key, content_type, stored.size, stored.sha256), step)
        if replaced is not None:
            self._storage.delete(replaced)

    def log(self, path: Path) -> None:
        """Store the log with every heartbeat if it has grown, so that it survives a crash of this worker or its
        machine."""
        if clock() - self._log_checked_at < settings().beat_seconds:
            return
        self._log_checked_at = clock()
        size = path.stat().st_size if path.exists() else 0
        if size > self._log_stored and self._log_upload.acquire(blocking=False):
            self._submit("log", lambda: self._store_log(path, size), self._log_upload.release)

    def _store_log(self, path: Path, size: int) -> None:
        key = keys.engine_log(self._ledger.job_id, self._ledger.number)
        self._storage.put(key, path)
        if not self._log_stored:
            self._ledger.keep_log(key)
        self._log_stored = size

    def finish(self, checkpoints: bool) -> None:
        """Wait for the pending uploads, and for those of checkpoints if `checkpoints` are still needed.

        While the storage is unavailable, uploads are retried for the grace period of a drain.
        """
        if not checkpoints:
            self._checkpoints.abandon()
        self._checkpoints.limit_retries(settings().drain_grace_seconds)
        self._thread.shutdown(wait=True)

    def close(self) -> None:
        """Cancel the uploads that have not started."""
        self._checkpoints.abandon()
        self._thread.shutdown(wait=True, cancel_futures=True)

    def _submit(self, what: str, upload: Callable[[], None], after: Callable[[], None] = lambda: None) -> None:
        def attempt() -> None:
            try:
                upload()
            except Taken:
                self._lease.give_up()
            except (StorageError, Malformed, OSError, *UNAVAILABLE) as error:
                log.warning("upload_failed", what=what, error=str(error).partition("\n")[0])
            finally:
                after()

        self._thread.submit(attempt).add_done_callback(_report_failure)


def _report_failure(upload: "Future[None]") -> None:
    if not upload.cancelled() and (error := upload.exception()) is not None:
        log.error("upload_crashed", exc_info=error)
