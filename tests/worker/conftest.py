"""A database for each test, and intervals of fractions of a second."""

import threading
from collections.abc import Callable
from typing import Any

import pytest

QUICK = {
    "lease_seconds": 8.0,  # long enough that no lease expires on a busy machine
    "beat_seconds": 0.5,
    "sweep_seconds": 0.2,
    "cancel_grace_seconds": 0.5,
    "drain_grace_seconds": 2.0,
}


@pytest.fixture
def both(configure: Callable[..., Any], migrated: str) -> None:
    """An empty database: once SQLite, once Postgres."""
    configure(**QUICK)


@pytest.fixture
def embedded(configure: Callable[..., Any], migrated_sqlite: str) -> None:
    """The embedded services: SQLite, a folder, a queue of files."""
    configure(**QUICK)


@pytest.fixture
def draining() -> threading.Event:
    """The event that is set when the worker is drained."""
    return threading.Event()
