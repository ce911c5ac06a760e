"""Limits of how much one key does at the same time in this process."""

from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager


class AtOnce:
    """Counts what is in progress, by name. For use on the event loop only."""

    def __init__(self) -> None:
        self._running: Counter[str] = Counter()

    @contextmanager
    def one_more(self, name: str, most: int) -> Iterator[bool]:
        """Counts one more while the context is open, and gives true; gives false if `most` are in progress already."""
        if self._running[name] >= most:
            yield False
            return
        self._running[name] += 1
        try:
            yield True
        finally:
            self._running[name] -= 1
            if not self._running[name]:
                del self._running[name]
