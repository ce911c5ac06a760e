"""How much of a time limit is used, so that a loaded machine measures as much as an idle one."""

import time
from collections.abc import Callable

WALL_SECONDS = 10
"""Seconds by the clock that count as a second of processor time, if a thread gets less than that."""

Clock = Callable[[], float]


class Stopwatch:
    """Seconds of processor time that the calling thread has used since the start; at least a tenth of those by the clock.

    The thread takes part in all that torch computes on several threads, so on an idle machine this is about the time by the clock.
    """

    def __init__(self, processor: Clock = time.thread_time, wall: Clock = time.monotonic):
        self._processor, self._wall = processor, wall
        self._began = processor(), wall()

    @property
    def seconds(self) -> float:
        """What counts as used by now."""
        processor, wall = self._began
        return max(self._processor() - processor, (self._wall() - wall) / WALL_SECONDS)
