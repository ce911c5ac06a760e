"""When the next checkpoint of a run is due."""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

SHARE_OF_TIME = 0.01
"""Largest share of a run's time that checkpoints may take."""


class CheckpointTimer:
    """A checkpoint is due `seconds` after the last one (or the timer's creation), later if the last one took long to save.

    With 0 seconds a checkpoint is due after every step.
    """

    def __init__(self, seconds: float, clock: Callable[[], float] = time.monotonic):
        self.seconds = seconds
        self._clock = clock
        self._last = clock()
        self._next = self._last + seconds
        self._last_done: int | None = None

    def due(self) -> bool:
        """Whether to save a checkpoint between two steps."""
        return self._clock() >= self._next

    def due_at_end(self, done: int) -> bool:
        """Whether to save a checkpoint at the end of a stage; `done` is the job's progress (`RunState.done`).

        False if the last checkpoint has the same progress or is less than `seconds` old.
        """
        return self._clock() - self._last >= self.seconds and done != self._last_done

    @contextmanager
    def saving(self, done: int) -> Iterator[None]:
        """Measure the time that the block takes to save a checkpoint, and set when the next one is due."""
        began = self._clock()
        yield
        self._last = self._clock()
        self._last_done = done
        pause = max(self.seconds, (self._last - began) / SHARE_OF_TIME) if self.seconds else 0.0
        self._next = self._last + pause
