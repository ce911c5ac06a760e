"""Threads that decode images while the training step runs."""

import os
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from functools import lru_cache
from typing import Generic, TypeVar

MOST_THREADS = 8
AHEAD = 4
"""Batches that are decoded before they are needed."""
TOGETHER = 4
"""Images that one thread decodes before it takes the next ones."""

T = TypeVar("T")


def usual() -> int:
    """Number of decoding threads: one core is left to the training step."""
    return max(1, min(MOST_THREADS, (os.cpu_count() or 1) - 1))


@lru_cache(maxsize=1)
def threads() -> ThreadPoolExecutor:
    """The decoding threads of this process, started at their first use."""
    return ThreadPoolExecutor(usual(), thread_name_prefix="decode")


def begin(work: Callable[[int], None], count: int) -> "list[Future[None]]":
    """Start `work(k)` for every k below `count`, in threads."""
    pool = threads()
    return [pool.submit(_each, work, range(start, min(start + TOGETHER, count))) for start in range(0, count, TOGETHER)]


def _each(work: Callable[[int], None], numbers: Sequence[int]) -> None:
    for number in numbers:
        work(number)


class Ahead(Generic[T]):
    """Begins items in the order of their numbers, some before they are taken."""

    def __init__(self, make: Callable[[int, int], T], steps_per_epoch: int, count: int = AHEAD):
        """`make(epoch, step)` begins an item; `count` are begun before they are taken."""
        self._make = make
        self._steps = steps_per_epoch
        self._count = count
        self._begun: dict[tuple[int, int], T] = {}

    def take(self, epoch: int, step: int) -> T:
        """The item of a step; begins those that follow."""
        wanted = [(epoch, step)]
        while len(wanted) <= self._count:
            last_epoch, last = wanted[-1]
            wanted.append((last_epoch, last + 1) if last + 1 < self._steps else (last_epoch + 1, 0))
        self._begun = {place: item for place, item in self._begun.items() if place in wanted}
        for place in wanted:
            if place not in self._begun:
                self._begun[place] = self._make(*place)
        return self._begun.pop((epoch, step))
