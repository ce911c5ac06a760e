"""Databases of each test's own, and times in fractions of a second."""

import threading
from collections.abc import Callable
from typing import Any

import pytest

QUICK = {
    "lease_seconds": 8.0,  # nobody loses one by chance, on a machine that is busy with other things
    "beat_seconds": 0.5,
    "sweep_seconds": 0.2,
    "cancel_grace_seconds": 0.5,
    "drain_grace_seconds": 2.0,
}


@pytest.fixture
def both(configure: Callable[..., Any], migrated: str) -> None:
    """An empty database, SQLite and Postgres in turn."""
    configure(**QUICK)


@pytest.fixture
def embedded(configure: Callable[..., Any], migrated_sqlite: str) -> None:
    """The embedded set: SQLite, a folder, a queue of files."""
    configure(**QUICK)


@pytest.fixture
def draining() -> threading.Event:
    """Set when the worker is to leave."""
    return threading.Event()
