import hashlib
import json
import random
from pathlib import Path

import pytest

from distillery_client import Client, errors
from tests.client.scripted import Request, Response, Scripted

CONTENT = random.Random(0).randbytes(300_000)
SHA256 = hashlib.sha256(CONTENT).hexdigest()
LIST = {"data": [{"name": "student.onnx", "size": len(CONTENT), "sha256": SHA256}], "next_cursor": None}


def serve(server: Scripted, cuts: list[int], content: bytes = CONTENT) -> None:
    """Script an artifact whose first downloads break after `cuts` bytes."""
    left = list(cuts)

    def script(request: Request) -> Response:
        if request.path.endswith("/artifacts"):
            return Response(body=json.dumps(LIST).encode())
        start = int(request.headers["Range"].removeprefix("bytes=").rstrip("-")) if "Range" in request.headers else 0
        return Response(206 if start else 200, content[start:], cut=left.pop(0) if left else None)

    server.script = script


def ranges(server: Scripted) -> list[str | None]:
    return [request.headers.get("Range") for request in server.requests if request.path.endswith("student.onnx")]


def test_a_download_is_complete(server: Scripted, client: Client, tmp_path: Path) -> None:
    serve(server, [])
    seen: list[tuple[int, int]] = []
    file = client.artifacts.download("job_1", "student.onnx", tmp_path, lambda *now: seen.append(now))
    assert file == tmp_path / "student.onnx" and file.read_bytes() == CONTENT
    assert seen[-1] == (len(CONTENT), len(CONTENT))
    assert list(tmp_path.iterdir()) == [file]


def test_a_broken_download_is_resumed(server: Scripted, client: Client, tmp_path: Path) -> None:
    serve(server, [100_000, 50_000])
    file = client.artifacts.download("job_1", "student.onnx", tmp_path)
    assert file.read_bytes() == CONTENT
    first, second, third = ranges(server)
    assert first is None and second is not None and third is not None
    assert 0 < int(second[6:-1]) <= 100_000 < int(third[6:-1]) + 50_000


def test_a_later_call_resumes_the_download(server: Scripted, tmp_path: Path) -> None:
    serve(server, [100_000] + [0] * 10)
    with Client(server.url, "dsk_test", attempts=1) as client, pytest.raises(errors.Unreachable):
        client.artifacts.download("job_1", "student.onnx", tmp_path)
    assert not (tmp_path / "student.onnx").exists()
    serve(server, [])
    with Client(server.url, "dsk_test") as client:
        client.artifacts.download("job_1", "student.onnx", tmp_path)
    assert (tmp_path / "student.onnx").read_bytes() == CONTENT
    assert ranges(server)[-1] is not None


def test_a_complete_file_is_not_downloaded_again(server: Scripted, client: Client, tmp_path: Path) -> None:
    (tmp_path / "student.onnx").write_bytes(CONTENT)
    serve(server, [])
    client.artifacts.download("job_1", "student.onnx", tmp_path)
    assert ranges(server) == []


def test_a_download_with_a_wrong_sha256_is_deleted(server: Scripted, client: Client, tmp_path: Path) -> None:
    serve(server, [], bytes(len(CONTENT)))
    with pytest.raises(errors.Corrupt):
        client.artifacts.download("job_1", "student.onnx", tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_an_unknown_artifact_is_not_found(server: Scripted, client: Client, tmp_path: Path) -> None:
    serve(server, [])
    with pytest.raises(errors.NotFound, match=r"no file named teacher\.onnx"):
        client.artifacts.download("job_1", "teacher.onnx", tmp_path)
