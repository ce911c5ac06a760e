"""What all tests share: one thread for maths, settings of their own, and real servers where a test asks for one."""

import os
import shutil
import sys
import zlib
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from tests import servers

for _name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"):
    os.environ.setdefault(_name, "1")  # read when numpy and torch are imported


SLOW_CASES = Path(__file__).with_name("slow_cases.txt")


def slow_cases() -> frozenset[str]:
    """The node ids of `slow_cases.txt`."""
    return frozenset(line for line in SLOW_CASES.read_text(encoding="utf-8").splitlines() if not line.startswith("#"))


_SLOW = slow_cases()


def pytest_itemcollected(item: pytest.Item) -> None:
    """Mark the listed cases slow."""
    if item.nodeid in _SLOW:
        item.add_marker(pytest.mark.slow)


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Run files of whole services first: few long tests at the end would leave the other processes without work."""
    items.sort(key=lambda item: not item.path.is_relative_to(Path(__file__).parent / "integration"))


def forget() -> None:
    """Forget what a process keeps from its settings: settings, engine, storage and Celery app."""
    loaded = {name: module for name, module in sys.modules.items() if name.startswith("models.")}
    if "models.database" in loaded and loaded["models.database"].engine.cache_info().currsize:
        loaded["models.database"].engine().dispose()
    if "models.queue.wake_up" in loaded and loaded["models.queue.wake_up"].app.cache_info().currsize:
        loaded["models.queue.wake_up"].app().close()
    for module, name in (
        ("database", "engine"),
        ("storage.opening", "storage"),
        ("queue.wake_up", "app"),
        ("settings", "settings"),
    ):
        if f"models.{module}" in loaded:
            getattr(loaded[f"models.{module}"], name).cache_clear()


@pytest.fixture(autouse=True)
def own_settings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """No test sees the settings of whoever runs it, nor those of another test."""
    for name in [name for name in os.environ if name.startswith("DISTILL_") and name != "DISTILL_TEST_SERVERS"]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("DISTILL_DATA", str(tmp_path / "data"))
    if "models.settings" in sys.modules or (Path.cwd() / ".env").exists():
        from models.settings import Settings

        monkeypatch.setitem(Settings.model_config, "env_file", None)
    forget()
    yield
    forget()


@pytest.fixture(autouse=True)
def own_numbers(request: pytest.FixtureRequest) -> None:
    """A test that draws with torch draws the same in every run, whatever ran before it."""
    if "torch" in sys.modules:
        sys.modules["torch"].manual_seed(zlib.crc32(request.node.nodeid.encode()))


@pytest.fixture
def configure(monkeypatch: pytest.MonkeyPatch) -> Callable[..., Any]:
    """`configure(lease_seconds=1)` sets settings for this test and the processes that it starts; returns them."""

    def configured(**values: Any) -> Any:
        for name, value in values.items():
            monkeypatch.setenv(f"DISTILL_{name.upper()}", str(value))
        forget()
        from models.settings import settings

        return settings()

    return configured


@pytest.fixture(scope="session")
def postgres() -> Iterator[servers.Postgres]:
    """A Postgres server."""
    with ExitStack() as stack:
        yield _started(stack, servers.postgres())


@pytest.fixture
def postgres_url(postgres: servers.Postgres) -> Iterator[str]:
    """A fresh and empty Postgres database."""
    url = postgres.create()
    yield url
    forget()
    postgres.drop(url)


@pytest.fixture(scope="session")
def redis_server() -> Iterator[str]:
    with ExitStack() as stack:
        yield _started(stack, servers.redis_server())


@pytest.fixture
def redis_url(redis_server: str) -> str:
    """A Redis without keys."""
    import redis

    with redis.Redis.from_url(redis_server) as client:
        client.flushdb()
    return redis_server


@pytest.fixture(scope="session")
def s3() -> Iterator[servers.S3]:
    """An S3 server; take a prefix of your own in its bucket."""
    with ExitStack() as stack:
        yield _started(stack, servers.s3_server())


def _started(stack: ExitStack, server: Any) -> Any:
    try:
        return stack.enter_context(server)
    except servers.Missing as missing:
        pytest.skip(str(missing))


@pytest.fixture(params=["sqlite", "postgres"])
def database_url(request: pytest.FixtureRequest, tmp_path: Path, configure: Callable[..., Any]) -> str:
    """A fresh and empty database of each kind in turn; the settings name it."""
    url = f"sqlite:///{tmp_path / 'test.db'}" if request.param == "sqlite" else request.getfixturevalue("postgres_url")
    configure(database_url=url)
    return str(url)


@pytest.fixture(scope="session")
def sqlite_template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An SQLite database with the newest schema, to copy."""
    path = tmp_path_factory.mktemp("template") / "template.db"
    _migrate(f"sqlite:///{path}")
    return path


@pytest.fixture(scope="session")
def postgres_template(postgres: servers.Postgres) -> Iterator[str]:
    """A Postgres database with the newest schema, to copy."""
    url = postgres.create()
    try:
        _migrate(url)
        yield url
    finally:
        postgres.drop(url)


def _migrate(url: str) -> None:
    from models import migrate

    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("DISTILL_DATABASE_URL", url)
        forget()
        migrate.upgrade()
    forget()


@pytest.fixture
def migrated_sqlite(tmp_path: Path, sqlite_template: Path, configure: Callable[..., Any]) -> str:
    """An SQLite database with the newest schema; the settings name it."""
    path = tmp_path / "migrated.db"
    shutil.copyfile(sqlite_template, path)
    url = f"sqlite:///{path}"
    configure(database_url=url)
    return url


@pytest.fixture
def migrated_postgres(
    postgres: servers.Postgres, postgres_template: str, configure: Callable[..., Any]
) -> Iterator[str]:
    """A Postgres database with the newest schema; the settings name it."""
    url = postgres.create(template=postgres_template)
    configure(database_url=url)
    yield url
    forget()
    postgres.drop(url)


@pytest.fixture(params=["sqlite", "postgres"])
def migrated(request: pytest.FixtureRequest) -> str:
    """A database of each kind in turn with the newest schema; the settings name it."""
    return str(request.getfixturevalue(f"migrated_{request.param}"))
