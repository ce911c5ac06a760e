"""When a run's next checkpoint is due."""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

SHARE_OF_TIME = 0.01
"""Checkpoints take no more than this share of a run's time."""


class CheckpointTimer:
    """Counts from its making. A checkpoint is due after `seconds`, and later where the last one took long to save.

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
        """Whether to save a checkpoint at the end of a stage, when `done` steps and stages of the job are done.

        Not if the last one is as new, or less than `seconds` old: so short a training is not worth one.
        """
        return self._clock() - self._last >= self.seconds and done != self._last_done

    @contextmanager
    def saving(self, done: int) -> Iterator[None]:
        """Time the block that saves a checkpoint, and set when the next one is due."""
        began = self._clock()
        yield
        self._last = self._clock()
        self._last_done = done
        pause = max(self.seconds, (self._last - began) / SHARE_OF_TIME) if self.seconds else 0.0
        self._next = self._last + pause
