"""How often somebody may do something: counts over a minute, in the memory of this process."""

import math
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass

WINDOW_SECONDS = 60
MOST_NAMES = 100_000
"""So many names are counted at once; beyond that, the oldest count is forgotten."""


@dataclass(frozen=True)
class Standing:
    """How somebody stands after a count: how many are allowed, how many of them were used, when it begins anew."""

    quota: int
    used: int
    reset_seconds: int

    @property
    def exceeded(self) -> bool:
        return self.used > self.quota

    def headers(self) -> dict[str, str]:
        """As draft-ietf-httpapi-ratelimit-headers says it."""
        left = max(0, self.quota - self.used)
        return {
            "RateLimit-Policy": f'"requests";q={self.quota};w={WINDOW_SECONDS}',
            "RateLimit": f'"requests";r={left};t={self.reset_seconds}',
        }


class Rates:
    """Counts by name. A name's window begins with its first count and lasts a minute."""

    def __init__(self, clock: Callable[[], float] = time.monotonic):
        self._clock, self._lock = clock, threading.Lock()
        self._windows: dict[str, tuple[float, int]] = {}  # in the order in which they began

    def count(self, name: str, quota: int, more: int = 1) -> Standing:
        """Count once more (or, with `more=0`, only look)."""
        now = self._clock()
        with self._lock:
            self._forget(now)
            began, used = self._windows.get(name, (now, 0))
            if more:
                self._windows[name] = began, used + more
        return Standing(quota, used + more, max(1, math.ceil(began + WINDOW_SECONDS - now)))

    def _forget(self, now: float) -> None:
        while self._windows:
            oldest = next(iter(self._windows))
            if self._windows[oldest][0] + WINDOW_SECONDS > now and len(self._windows) <= MOST_NAMES:
                return
            del self._windows[oldest]
