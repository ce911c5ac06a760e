"""How fast a run goes, and so how long it still takes."""

from collections import deque
from collections.abc import Callable

from worker.clock import clock

WINDOW_SECONDS = 120.0
"""What is longer ago says little of how fast it goes now."""
LEAST_SECONDS = 2.0


class Pace:
    """Remembers what fraction of a job was done when, for some minutes."""

    def __init__(self, seconds: Callable[[], float] = clock):
        self._seconds = seconds
        self._seen: deque[tuple[float, float]] = deque()

    def seconds_left(self, fraction: object) -> float | None:
        """Seconds until the whole is done, at the pace of the last minutes; None while that is not known."""
        if not isinstance(fraction, int | float):
            return None
        at = self._seconds()
        if not self._seen or at - self._seen[-1][0] >= 1.0:
            self._seen.append((at, float(fraction)))
        while len(self._seen) > 2 and at - self._seen[1][0] >= WINDOW_SECONDS:
            self._seen.popleft()
        begun, done = self._seen[0]
        if at - begun < LEAST_SECONDS or fraction <= done:
            return None
        return round((1.0 - fraction) * (at - begun) / (fraction - done), 1)
