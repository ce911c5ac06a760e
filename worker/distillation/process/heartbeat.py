"""Heartbeats from long work other than training steps.

Loops over batches call `pulse()`. A listening run then reports that it is alive, so that the worker does not consider it
stalled, and may raise to end the work.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar

_listener: ContextVar[Callable[[], None] | None] = ContextVar("listener", default=None)


def pulse() -> None:
    """Send a heartbeat to the listener, if there is one."""
    listener = _listener.get()
    if listener is not None:
        listener()


@contextmanager
def heard_by(listener: Callable[[], None]) -> Iterator[None]:
    """A context in which every `pulse` calls `listener`."""
    token = _listener.set(listener)
    try:
        yield
    finally:
        _listener.reset(token)
