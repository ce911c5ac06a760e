"""One API for all tests of this folder, on each database; every test has keys of its own."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.api.service import Service, User, running


@pytest.fixture(scope="session")
def embedded(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    """An API on SQLite, a folder and a queue of files."""
    with running(tmp_path_factory.mktemp("embedded")) as service:
        yield service


@pytest.fixture(scope="session")
def on_postgres(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    """An API on Postgres."""
    postgres, template = request.getfixturevalue("postgres"), request.getfixturevalue("postgres_template")
    url = postgres.create(template=template)
    try:
        with running(tmp_path_factory.mktemp("on_postgres"), database_url=url) as service:
            yield service
    finally:
        postgres.drop(url)


@pytest.fixture(scope="session")
def narrow(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    """An API with small limits."""
    with running(
        tmp_path_factory.mktemp("narrow"), upload_bytes=100_000, storage_bytes=150_000, queued_jobs=2
    ) as service:
        yield service


@pytest.fixture(params=["sqlite", "postgres"])
def service(request: pytest.FixtureRequest) -> Service:
    """An API on each database in turn."""
    found: Service = request.getfixturevalue("embedded" if request.param == "sqlite" else "on_postgres")
    return found


@pytest.fixture
def user(service: Service) -> Iterator[User]:
    """Somebody with a fresh key, on each database in turn."""
    with service.user() as somebody:
        yield somebody


@pytest.fixture
def other(service: Service) -> Iterator[User]:
    """Somebody else."""
    with service.user() as somebody:
        yield somebody


@pytest.fixture
def alone(embedded: Service) -> Iterator[User]:
    """Somebody with a fresh key, on SQLite alone: for what no database has a part in."""
    with embedded.user() as somebody:
        yield somebody


@pytest.fixture
def repository() -> Path:
    return Path(__file__).parents[2]
