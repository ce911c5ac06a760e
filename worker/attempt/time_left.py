"""The estimate of a run's remaining time."""

from collections import deque
from collections.abc import Callable

from worker.clock import clock

WINDOW_SECONDS = 120.0
"""Length of the window over which the speed is measured."""
LEAST_SECONDS = 2.0


class Pace:
    """Records the completed fraction of a job over the last minutes."""

    def __init__(self, seconds: Callable[[], float] = clock):
        self._seconds = seconds
        self._samples: deque[tuple[float, float]] = deque()

    def seconds_left(self, fraction: object) -> float | None:
        """Seconds until the job is complete, at the speed of the last minutes; None while the speed is unknown."""
        if not isinstance(fraction, int | float):
            return None
        at = self._seconds()
        if not self._samples or at - self._samples[-1][0] >= 1.0:
            self._samples.append((at, float(fraction)))
        while len(self._samples) > 2 and at - self._samples[1][0] >= WINDOW_SECONDS:
            self._samples.popleft()
        started_at, done = self._samples[0]
        if at - started_at < LEAST_SECONDS or fraction <= done:
            return None
        return round((1.0 - fraction) * (at - started_at) / (fraction - done), 1)
