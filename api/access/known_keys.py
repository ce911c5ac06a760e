"""Callers that this process has just looked up, so that a client that polls does not ask the database at every request."""

import threading
import time
from collections.abc import Callable
from typing import Generic, TypeVar

KNOWN_SECONDS = 0.9
"""How long a caller is known. A revoked key is refused within a second by every process, without any message between them."""
MAX_KNOWN = 10_000

C = TypeVar("C")


class KnownKeys(Generic[C]):
    """Callers by the hash of their key. Only keys that were accepted are kept."""

    def __init__(self, clock: Callable[[], float] = time.monotonic):
        self.clock = clock
        self._lock = threading.Lock()
        self._callers: dict[str, tuple[float, C]] = {}

    def get(self, digest: str) -> C | None:
        """The caller, if it was read from the database less than `KNOWN_SECONDS` ago."""
        read_at, caller = self._callers.get(digest, (0.0, None))
        return caller if caller is not None and self.clock() - read_at < KNOWN_SECONDS else None

    def last(self, digest: str) -> C | None:
        """The caller as it was read last, however long ago: it may have ended since."""
        return self._callers.get(digest, (0.0, None))[1]

    def keep(self, digest: str, caller: C, read_at: float) -> None:
        """Remember a caller; `read_at` is the clock's time before the query, so that no later revocation is missed."""
        with self._lock:
            self._callers.pop(digest, None)
            self._callers[digest] = read_at, caller
            if len(self._callers) > MAX_KNOWN:
                del self._callers[next(iter(self._callers))]

    def forget(self) -> None:
        """Forget all callers, because a key was changed."""
        with self._lock:
            self._callers.clear()
