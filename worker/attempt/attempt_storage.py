"""Storage as one attempt uses it: it waits while the storage is away, and ends as soon as the attempt is not to go on."""

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
    """Every method raises what `check` raises, and `Unavailable` when the storage has been away for too long.

    Args:
        check: raises where the attempt is not to go on; called before every try, in every pause, and between the chunks
            of a download.
        patience_seconds: how long the storage may be away; None for the setting `storage_patience_seconds`.
    """

    def __init__(self, check: Callable[[], None], patience_seconds: float | None = None):
        self.check, self._patience_seconds = check, patience_seconds

    def put(self, key: str, data: bytes | Path, create_only: bool = False) -> Stored:
        """Write a blob (see `Storage.put`)."""
        return self._patiently(lambda: storage().put(key, data, create_only))

    def download(self, key: str, path: Path, sha256: str | None = None) -> Stored:
        """Copy a blob to a file (see `Storage.download`)."""
        return self._patiently(lambda: storage().download(key, path, sha256, self.check))

    def size(self, key: str) -> int | None:
        """Bytes of a blob, None if there is none."""
        return self._patiently(lambda: storage().size(key))

    def delete(self, key: str) -> None:
        """Remove a blob; that there is none is fine."""
        self._patiently(lambda: storage().delete(key))

    def _patiently(self, work: Callable[[], Result]) -> Result:
        patience = settings().storage_patience_seconds if self._patience_seconds is None else self._patience_seconds
        give_up, pause = clock() + patience, RETRY_SECONDS
        while True:
            self.check()
            try:
                return work()
            except Unavailable as error:
                if clock() + pause > give_up:
                    raise
                log.warning("storage_away_retrying", error=str(error))
            self._rest(pause)
            pause = min(LONGEST_PAUSE_SECONDS, 2 * pause)

    def _rest(self, seconds: float) -> None:
        again = clock() + seconds
        while clock() < again:
            time.sleep(min(RETRY_SECONDS, seconds))
            self.check()
