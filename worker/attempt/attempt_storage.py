"""Storage for one attempt: operations are retried while the storage is unavailable, and end when the attempt must
end."""

import time
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

import structlog

from models.settings import settings
from models.storage.chunks import Stored
from models.storage.errors import Unavailable
from models.storage.opening import storage
from worker.clock import clock

RETRY_SECONDS = 0.5
LONGEST_PAUSE_SECONDS = 5.0

Result = TypeVar("Result")
log = structlog.get_logger(__name__)


class AttemptStorage:
    """Storage operations with retries.

    Every method raises the exceptions of `check`, and `Unavailable` if the storage is unavailable for too long.

    Args:
        check: raises if the attempt must end; called before every try, during every pause, and between the chunks of a
            download.
        patience_seconds: how long to retry; None for the setting `storage_patience_seconds`.
    """

    def __init__(self, check: Callable[[], None], patience_seconds: float | None = None):
        self.check = check
        self._patience_seconds = patience_seconds

    def put(self, key: str, data: bytes | Path, create_only: bool = False) -> Stored:
        """Write a blob (see `Storage.put`)."""
        return self._retried(lambda: storage().put(key, data, create_only))

    def download(self, key: str, path: Path, sha256: str | None = None) -> Stored:
        """Copy a blob to a file (see `Storage.download`)."""
        return self._retried(lambda: storage().download(key, path, sha256, self.check))

    def size(self, key: str) -> int | None:
        """Size of a blob in bytes; None if it does not exist."""
        return self._retried(lambda: storage().size(key))

    def delete(self, key: str) -> None:
        """Remove a blob, if it exists."""
        self._retried(lambda: storage().delete(key))

    def _retried(self, work: Callable[[], Result]) -> Result:
        patience = settings().storage_patience_seconds if self._patience_seconds is None else self._patience_seconds
        deadline = clock() + patience
        pause = RETRY_SECONDS
        while True:
            self.check()
            try:
                return work()
            except Unavailable as error:
                if clock() + pause > deadline:
                    raise
                log.warning("storage_unavailable_retrying", error=str(error))
            self._pause(pause)
            pause = min(LONGEST_PAUSE_SECONDS, 2 * pause)

    def _pause(self, seconds: float) -> None:
        end = clock() + seconds
        while clock() < end:
            time.sleep(min(RETRY_SECONDS, seconds))
            self.check()
