"""Locks on files that the kernel releases when their owner dies."""

import fcntl
import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

PAUSE_SECONDS = 0.05


def take(path: Path, shared: bool = False) -> int | None:
    """Lock a file at once, and create it if it does not exist; None if another has locked it.

    Returns:
        A descriptor, which holds the lock until it is closed.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    while True:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(descriptor, (fcntl.LOCK_SH if shared else fcntl.LOCK_EX) | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(descriptor)
            return None
        if os.fstat(descriptor).st_nlink:
            return descriptor
        os.close(descriptor)  # its last owner has removed it: lock the new file


@contextmanager
def locked(path: Path, check: Callable[[], None] = lambda: None) -> Iterator[None]:
    """A context that holds the exclusive lock of a file. `check` is called while another holds it, and may raise."""
    while (descriptor := take(path)) is None:
        check()
        time.sleep(PAUSE_SECONDS)
    try:
        yield
    finally:
        os.close(descriptor)
