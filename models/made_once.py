"""What a process makes at its first use and then keeps, such as its connection pool."""

from collections.abc import Callable
from functools import lru_cache, update_wrapper
from threading import Lock
from typing import Generic, TypeVar

T = TypeVar("T")


class MadeOnce(Generic[T]):
    """A decorator like `lru_cache(maxsize=1)`, but threads that call first at the same time wait for one object.

    `lru_cache` calls the function once for each of them and keeps one result: the connections of the others stay open.
    """

    def __init__(self, make: Callable[[], T]) -> None:
        self._cached = lru_cache(maxsize=1)(make)
        self._lock = Lock()
        self.cache_clear = self._cached.cache_clear
        self.cache_info = self._cached.cache_info
        update_wrapper(self, make)

    def __call__(self) -> T:
        if self.cache_info().currsize:  # without the lock, which a fork may copy while another thread holds it
            return self._cached()
        with self._lock:
            return self._cached()
