"""Many downloads at the same time: a limited number by key, and little memory."""

import socket
import sys
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from models.records import Artifact
from tests.api.http.test_slow_clients import connected, resident_bytes
from tests.api.service import Service, User, problem, running

CLIENTS, AT_ONCE, BYTES = 40, 8, 16 * 2**20
MOST_BYTES = 200 * 2**20
"""Most resident memory of an API process (docs/reliability.md)."""
pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    with running(tmp_path_factory.mktemp("downloads")) as found:
        yield found


@pytest.fixture
def reader(service: Service) -> Iterator[User]:
    """A key with a job that has a large and a small artifact."""
    with service.user() as user:
        user.job_id = user.job("succeeded")  # type: ignore[attr-defined]
        user.blob(Artifact, user.job_id, "large", bytes(BYTES))  # type: ignore[attr-defined]
        user.blob(Artifact, user.job_id, "small", b"small")  # type: ignore[attr-defined]
        yield user


def begun(user: User, name: str = "artifacts/large") -> socket.socket:
    """A client that asks for a file and reads nothing."""
    client = connected(user.service)
    head = f"GET /v1/jobs/{user.job_id}/{name} HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {user.key}\r\n\r\n"  # type: ignore[attr-defined]
    client.sendall(head.encode())
    return client


def status_of(client: socket.socket) -> int:
    return int(client.recv(64).split()[1])


@pytest.mark.parametrize("name", ["artifacts/large", "artifacts.zip"])
def test_a_key_has_a_limited_number_of_downloads_and_they_take_little_memory(reader: User, name: str) -> None:
    clients = [begun(reader, name) for _ in range(CLIENTS)]
    try:
        with ThreadPoolExecutor(CLIENTS) as pool:
            statuses = Counter(pool.map(status_of, clients))
        assert statuses == {200: AT_ONCE, 429: CLIENTS - AT_ONCE}
        assert resident_bytes(reader.service) < MOST_BYTES
        refused = reader.http.get(f"/jobs/{reader.job_id}/{name}")  # type: ignore[attr-defined]
        assert (
            "downloads at the same time" in problem(refused, 429, "too-many")["detail"]
            and refused.headers["retry-after"]
        )
        small = reader.http.get(f"/jobs/{reader.job_id}/artifacts/small")  # type: ignore[attr-defined]
        assert small.content == b"small" and small.headers["content-length"] == "5"
        with reader.service.user() as other:
            job = other.job("succeeded")
            other.blob(Artifact, job, "large", bytes(BYTES))
            assert len(other.http.get(f"/jobs/{job}/artifacts/large").content) == BYTES
    finally:
        for client in clients:
            client.close()


def test_a_place_is_free_again_when_a_download_ends_or_its_client_goes(reader: User) -> None:
    clients = [begun(reader) for _ in range(AT_ONCE)]
    assert [status_of(client) for client in clients] == [200] * AT_ONCE
    for client in clients:
        client.close()
    for _ in range(100):
        answer = reader.http.get(f"/jobs/{reader.job_id}/artifacts/large")  # type: ignore[attr-defined]
        if answer.status_code == 200:
            break
    for _ in range(AT_ONCE + 2):
        assert len(reader.http.get(f"/jobs/{reader.job_id}/artifacts/large").content) == BYTES  # type: ignore[attr-defined]


def test_downloads_of_many_keys_stay_below_the_memory_of_a_process(tmp_path: Path) -> None:
    with running(tmp_path) as service:
        users = [service.user() for _ in range(4)]
        clients = []
        for user in users:
            user.job_id = user.job("succeeded")  # type: ignore[attr-defined]
            user.blob(Artifact, user.job_id, "large", bytes(BYTES))  # type: ignore[attr-defined]
            clients += [begun(user) for _ in range(AT_ONCE)]
        with ThreadPoolExecutor(len(clients)) as pool:
            assert set(pool.map(status_of, clients)) == {200}
        assert service.peak_bytes < MOST_BYTES, f"{service.peak_bytes / 2**20:.0f} MB"
        for client in clients:
            client.close()
        for user in users:
            user.http.close()
