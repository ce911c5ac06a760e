"""A sign of life from within long work that is no training step.

Whoever loops over batches calls `pulse()`. The run that listens says that it is alive, so that nobody takes it for a
hung one, and may end the work by raising.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar

_listener: ContextVar[Callable[[], None] | None] = ContextVar("listener", default=None)


def pulse() -> None:
    """Say that the work goes on; does nothing where nobody listens."""
    listener = _listener.get()
    if listener is not None:
        listener()


@contextmanager
def heard_by(listener: Callable[[], None]) -> Iterator[None]:
    """Have every pulse of this block call `listener`."""
    token = _listener.set(listener)
    try:
        yield
    finally:
        _listener.reset(token)
