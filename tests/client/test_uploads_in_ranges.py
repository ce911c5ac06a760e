"""Large files are sent in ranges, and a broken upload continues."""

import json
from pathlib import Path
from typing import Any

import pytest

from distillery_client import Client, errors, uploads
from tests.client.scripted import Request, Response, Scripted

CONTENT = bytes(range(256)) * 8


class Service:
    """Receives ranges as the API does; `failures` maps the number of a PUT to the response that is sent instead."""

    def __init__(self, failures: dict[int, Response] | None = None, kept: bool = False):
        self.received = b""
        self.puts: list[str] = []
        self.failures = failures or {}
        self.kept = kept
        """Whether a range whose response fails was received."""

    def record(self) -> dict[str, Any]:
        done = len(self.received) == len(CONTENT)
        size = len(CONTENT) if self.received else None
        status = "inspecting" if done else "waiting"
        known = {"id": "dts_1", "status": status, "received": len(self.received), "size": size}
        return known | {"upload": "http://elsewhere/v1/datasets/dts_1/content"}

    def __call__(self, request: Request) -> Response:
        if request.method == "PUT":
            self.puts.append(request.headers["Content-Range"])
            failure = self.failures.get(len(self.puts))
            first = int(request.headers["Content-Range"].removeprefix("bytes ").partition("-")[0])
            if failure is None or self.kept:
                if first != len(self.received):
                    return Response(409, b'{"code": "conflict", "detail": "another range is next"}')
                self.received += request.body
            if failure is not None:
                return failure
        return Response(body=json.dumps(self.record()).encode())


@pytest.fixture(autouse=True)
def small_ranges(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(uploads, "RANGE_BYTES", 500)


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "photographs.zip"
    path.write_bytes(CONTENT)
    return path


def test_a_large_file_is_sent_in_ranges(server: Scripted, client: Client, file: Path) -> None:
    server.script = service = Service()
    seen: list[tuple[int, int]] = []
    record = client.datasets.upload(service.record(), file, lambda *now: seen.append(now))
    assert record["status"] == "inspecting" and service.received == CONTENT
    assert service.puts[0] == "bytes 0-499/2048" and service.puts[-1] == "bytes 2000-2047/2048"
    assert seen[-1] == (2048, 2048)


@pytest.mark.parametrize("kept", [False, True])
def test_a_range_that_fails_is_sent_again(server: Scripted, client: Client, file: Path, kept: bool) -> None:
    server.script = service = Service({2: Response(503)}, kept)
    client.datasets.upload(service.record(), file)
    assert service.received == CONTENT and len(service.puts) == 6


def test_a_later_call_continues(server: Scripted, file: Path) -> None:
    server.script = service = Service({number: Response(503) for number in range(3, 20)})
    with Client(server.url, "dsk_test", attempts=1) as client, pytest.raises(errors.DistilleryError):
        client.datasets.upload(service.record(), file)
    assert len(service.received) == 1000
    service.failures = {}
    with Client(server.url, "dsk_test") as client:
        client.datasets.upload(service.record(), file)
    assert service.received == CONTENT and service.puts[-3] == "bytes 1000-1499/2048"
