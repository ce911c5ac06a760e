from collections.abc import Iterator

import pytest

from distillery_client import Client
from tests.client.scripted import Scripted


@pytest.fixture
def server() -> Iterator[Scripted]:
    server = Scripted()
    yield server
    server.close()


@pytest.fixture
def client(server: Scripted, monkeypatch: pytest.MonkeyPatch) -> Iterator[Client]:
    monkeypatch.setattr("distillery_client.connection.FIRST_PAUSE_SECONDS", 0.001)
    with Client(server.url, "dsk_test") as client:
        yield client
