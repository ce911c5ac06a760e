"""Rate limits: counts within one minute, in the memory of this process."""

import math
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass

WINDOW_SECONDS = 60
MAX_NAMES = 100_000
"""Most names counted at once; beyond that, the oldest count is dropped."""


@dataclass(frozen=True)
class Usage:
    """State of a rate limit after a count: the quota, how much of it is used, and the seconds until it resets."""

    quota: int
    used: int
    reset_seconds: int

    @property
    def exceeded(self) -> bool:
        return self.used > self.quota

    def headers(self) -> dict[str, str]:
        """The headers of draft-ietf-httpapi-ratelimit-headers."""
        left = max(0, self.quota - self.used)
        return {
            "RateLimit-Policy": f'"requests";q={self.quota};w={WINDOW_SECONDS}',
            "RateLimit": f'"requests";r={left};t={self.reset_seconds}',
        }


class Rates:
    """Counts by name. The window of a name starts at its first count and lasts one minute."""

    def __init__(self, clock: Callable[[], float] = time.monotonic):
        self._clock = clock
        self._lock = threading.Lock()
        self._windows: dict[str, tuple[float, int]] = {}  # ordered by their start

    def count(self, name: str, quota: int, more: int = 1) -> Usage:
        """Add `more` to a name's count; with `more=0`, only read it."""
        now = self._clock()
        with self._lock:
            self._drop_old(now)
            started, used = self._windows.get(name, (now, 0))
            if more:
                self._windows[name] = started, used + more
        return Usage(quota, used + more, max(1, math.ceil(started + WINDOW_SECONDS - now)))

    def _drop_old(self, now: float) -> None:
        while self._windows:
            oldest = next(iter(self._windows))
            if self._windows[oldest][0] + WINDOW_SECONDS > now and len(self._windows) <= MAX_NAMES:
                return
            del self._windows[oldest]
