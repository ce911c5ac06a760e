"""One API per database for all tests of this folder; every test has its own keys."""

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
    """A user with a new key, on each database in turn."""
    with service.user() as new_user:
        yield new_user


@pytest.fixture
def other(service: Service) -> Iterator[User]:
    """A second user with a new key."""
    with service.user() as new_user:
        yield new_user


@pytest.fixture
def alone(embedded: Service) -> Iterator[User]:
    """A user with a new key, on SQLite only, for tests that do not depend on the database."""
    with embedded.user() as new_user:
        yield new_user


@pytest.fixture
def repository() -> Path:
    return Path(__file__).parents[2]
