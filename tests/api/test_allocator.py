"""The API returns the memory of large requests to the system."""

import socket
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

import httpx
import pytest

from models.records import Artifact
from tests.api.http.test_slow_clients import connected, resident_bytes
from tests.api.service import User, running

CLIENTS, BYTES = 40, 16 * 2**20
GROWTH_BYTES = 32 * 2**20


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_the_buffers_of_downloads_that_nobody_reads_are_returned(tmp_path: Path) -> None:
    with running(tmp_path, client_seconds=2.0, downloads_at_once=CLIENTS) as service, service.user() as user:
        job = user.job("succeeded")
        user.blob(Artifact, job, "large", bytes(BYTES))
        _download(user, job)  # what the first download imports and caches does not count
        before = resident_bytes(service)
        clients = [connected(service) for _ in range(CLIENTS)]
        try:
            for client in clients:
                head = f"GET /v1/jobs/{job}/artifacts/large HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {user.key}\r\n\r\n"
                client.sendall(head.encode())
            _all(lambda client: client.recv(100), clients)
        finally:
            for client in clients:
                client.close()
        deadline = time.monotonic() + 60
        while resident_bytes(service) - before > GROWTH_BYTES:
            assert time.monotonic() < deadline, f"{(resident_bytes(service) - before) / 2**20:.0f} MB are kept"
            time.sleep(0.2)


def _download(user: User, job: str) -> None:
    httpx.get(
        f"{user.service.url}/v1/jobs/{job}/artifacts/large",
        headers={"Authorization": f"Bearer {user.key}"},
        trust_env=False,
        timeout=60,
    )


def _all(act: Callable[[socket.socket], object], clients: list[socket.socket]) -> None:
    threads = [threading.Thread(target=act, args=(client,)) for client in clients]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
