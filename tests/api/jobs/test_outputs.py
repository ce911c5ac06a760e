"""Outputs of a job: events and their stream, metrics, previews, artifacts."""

import base64
import hashlib
import io
import json
import threading
import time
import tracemalloc
import zipfile
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from sqlalchemy import delete
from starlette.requests import Request

from api.http.downloads import Blob, serve, zipped
from models.records import Artifact, Preview
from models.storage.errors import NotFound
from models.storage.opening import storage
from tests.api.service import User, pointers, problem

DATA = bytes(range(256)) * 40


@pytest.fixture
def job(user: User) -> str:
    return user.job("running")


@pytest.fixture
def artifact(user: User) -> tuple[str, str]:
    """The path of an artifact of `DATA`, and its SHA-256."""
    job = user.job("succeeded")
    sha256 = user.blob(Artifact, job, "student.safetensors", DATA)
    return f"/jobs/{job}/artifacts/student.safetensors", sha256


def test_events_are_listed_in_pages_oldest_first(user: User, job: str) -> None:
    user.events(job, 7, data={"a": 1})
    page = user.http.get(f"/jobs/{job}/events", params={"limit": 3}).json()
    assert [event["seq"] for event in page["data"]] == [1, 2, 3]
    assert page["data"][0] | {"created_at": None} == {
        "seq": 1, "attempt": 1, "type": "log", "level": "info", "message": "message 1", "data": {"a": 1}, "links": {},
        "created_at": None,
    }  # fmt: skip
    rest = user.http.get(f"/jobs/{job}/events", params={"limit": 9, "after": 0, "cursor": page["next_cursor"]}).json()
    assert [event["seq"] for event in rest["data"]] == [4, 5, 6, 7] and rest["next_cursor"] is None
    late = user.http.get(f"/jobs/{job}/events", params={"after": 5}).json()["data"]
    assert [event["seq"] for event in late] == [6, 7]


class Stream:
    """A client of server-sent events."""

    def __init__(self, user: User, job: str, **headers: str):
        self.http = httpx.Client(trust_env=False, timeout=30, headers=user.http.headers)
        address = f"{user.service.url}/v1/jobs/{job}/events"
        self.request = self.http.stream("GET", address, headers={"Accept": "text/event-stream"} | headers)

    def __enter__(self) -> Iterator[dict[str, str]]:
        self.response = self.request.__enter__()
        assert self.response.headers["content-type"].startswith("text/event-stream")
        return self.messages()

    def __exit__(self, *exception: Any) -> None:
        self.request.__exit__(*exception)
        self.http.close()

    def messages(self) -> Iterator[dict[str, str]]:
        message: dict[str, str] = {}
        for line in self.response.iter_lines():
            name, _, value = line.partition(": ")
            if line and name:
                message[name] = value
            elif not line and "data" in message:
                yield message
                message = {}
            elif not line:
                message = {}


def test_a_stream_sends_every_event_once_and_ends_with_the_job(user: User, job: str) -> None:
    user.events(job, 3)

    def work() -> None:
        for count in (1, 250, 4):
            time.sleep(0.2)
            user.events(job, count)
        user.metrics(job, "loss", [2.0, 1.0])
        user.events(job, 1, "status", {"status": "succeeded"})
        user.change(job, status="succeeded")

    worker = threading.Thread(target=work)
    worker.start()
    with Stream(user, job) as messages:
        found = list(messages)
    worker.join()
    events = [message for message in found if "id" in message]
    assert [int(message["id"]) for message in events] == list(range(1, 260))
    assert all(json.loads(message["data"])["seq"] == int(message["id"]) for message in events)
    assert events[-1]["event"] == "status" and events[0]["event"] == "log"
    newest = json.loads([message for message in found if message["event"] == "metrics"][-1]["data"])
    assert newest["data"] == {"loss": {"step": 2, "value": 1.0}}


def test_a_stream_continues_after_the_last_event_id(user: User, job: str) -> None:
    user.events(job, 6)
    seen: list[int] = []
    for _ in range(3):  # a connection that breaks after every two events
        headers = {"Last-Event-ID": str(seen[-1])} if seen else {}
        with Stream(user, job, **headers) as messages:
            seen += [int(next(messages)["id"]), int(next(messages)["id"])]
    assert seen == [1, 2, 3, 4, 5, 6]


def test_a_stream_after_the_last_event_of_an_ended_job_is_a_204(user: User, job: str) -> None:
    user.events(job, 3)
    user.change(job, status="failed")
    with Stream(user, job) as messages:
        seen = [message["id"] for message in messages if "id" in message]
    again = {"Accept": "text/event-stream", "Last-Event-ID": seen[-1]}
    assert user.http.get(f"/jobs/{job}/events", headers=again).status_code == 204
    assert user.http.get(f"/jobs/{job}/events", headers={"Last-Event-ID": seen[-1]}).status_code == 200


def test_a_slow_client_misses_no_event(alone: User) -> None:
    job = alone.job("running")
    with Stream(alone, job) as messages, Stream(alone, job) as quick:
        received = []
        for number in range(1, 7):  # far more than the buffers of a feed and of a socket
            alone.events(job, 600, data={"filling": "x" * 2000})
            while len(received) < 600 * number:
                received += [int(message["id"]) for message in [next(quick)] if "id" in message]
        alone.change(job, status="succeeded")
        assert received == list(range(1, 3601))
        assert [int(message["id"]) for message in messages if "id" in message] == received


def test_a_preview_event_links_to_the_preview(user: User, job: str) -> None:
    user.blob(Preview, job, "a.png", b"image", step=1, content_type="image/png")
    user.events(job, 1, "preview", {"name": "a.png", "step": 1})
    [event] = user.http.get(f"/jobs/{job}/events").json()["data"]
    assert user.http.get(event["links"]["self"]).content == b"image"
    user.change(job, status="failed")
    with Stream(user, job) as messages:
        assert json.loads(next(messages)["data"])["links"] == event["links"]


def test_concurrent_streams_receive_the_same_events(user: User, job: str) -> None:
    received: list[list[int]] = []

    def listen() -> None:
        with Stream(user, job) as messages:
            received.append([int(message["id"]) for message in messages if "id" in message])

    listeners = [threading.Thread(target=listen) for _ in range(6)]
    for listener in listeners:
        listener.start()
    for _ in range(5):
        user.events(job, 2)
        time.sleep(0.05)
    user.change(job, status="failed")
    for listener in listeners:
        listener.join()
    assert received == [list(range(1, 11))] * 6


def test_a_stream_that_cannot_start_is_a_problem_document(user: User, other: User, job: str) -> None:
    headers = {"Accept": "text/event-stream"}
    problem(user.http.get(f"/jobs/{job}/events", headers=headers | {"Last-Event-ID": "x"}), 400, "bad-header")
    problem(other.http.get(f"/jobs/{job}/events", headers=headers), 404)


def test_metrics_are_listed_by_name_and_step(user: User, job: str) -> None:
    user.metrics(job, "loss", [4.0, None, 2.0, 1.0])
    user.metrics(job, "accuracy", [0.5, 0.75])

    def found(**params: Any) -> list[tuple[str, int, float | None]]:
        page = user.http.get(f"/jobs/{job}/metrics", params=params).json()
        return [(one["name"], one["step"], one["value"]) for one in page["data"]]

    loss = [("loss", 1, 4.0), ("loss", 2, None), ("loss", 3, 2.0), ("loss", 4, 1.0)]
    accuracy = [("accuracy", 1, 0.5), ("accuracy", 2, 0.75)]
    assert found() == accuracy + loss
    assert found(name="loss") == loss and found(name=["loss", "accuracy"]) == accuracy + loss
    assert found(name="loss", after=2) == loss[2:] and found(name="none") == []
    page = user.http.get(f"/jobs/{job}/metrics", params={"limit": 3}).json()
    assert page["next_cursor"] and len(page["data"]) == 3
    assert found(cursor=page["next_cursor"]) == loss[1:]
    assert pointers(user.http.get(f"/jobs/{job}/metrics", params={"name": "a\0"})) == ["name.0"]


def test_numbers_that_are_not_finite_are_null(alone: User) -> None:
    job = alone.job("running", progress={"fraction": float("nan")})  # SQLite accepts NaN, though no worker writes it
    assert alone.http.get(f"/jobs/{job}").json()["progress"] == {"fraction": None}
    alone.metrics(job, "loss", [float("inf")])
    assert alone.http.get(f"/jobs/{job}/metrics").json()["data"][0]["value"] is None
    assert alone.http.get(f"/jobs/{job}").json()["metrics"]["loss"]["value"] is None


def test_previews_are_listed_and_images_are_sent_inline(user: User, job: str) -> None:
    user.blob(Preview, job, "samples/a.png", b"first", step=10, content_type="image/png")
    user.blob(Preview, job, "page.html", b"<script>", step=20, content_type="text/html")
    first, second = user.http.get(f"/jobs/{job}/previews").json()["data"]
    assert (first["name"], first["step"], second["name"]) == ("page.html", 20, "samples/a.png")
    shown = user.http.get(second["links"]["self"])
    assert shown.content == b"first" and shown.headers["content-type"] == "image/png"
    assert shown.headers["content-disposition"] == 'inline; filename="a.png"'
    page = user.http.get(first["links"]["self"])
    assert page.headers["content-disposition"].startswith("attachment")
    assert page.headers["x-content-type-options"] == "nosniff"
    problem(user.http.get(f"/jobs/{job}/previews/none.png"), 404)


def test_artifacts_are_listed_with_size_and_sha256(user: User, artifact: tuple[str, str]) -> None:
    path, sha256 = artifact
    page = user.http.get(path.rpartition("/")[0]).json()
    [one] = page["data"]
    assert (one["name"], one["size"], one["sha256"]) == ("student.safetensors", len(DATA), sha256)
    assert one["links"]["self"].endswith(path) and page["next_cursor"] is None


def test_an_artifact_is_downloaded_with_its_headers(user: User, artifact: tuple[str, str]) -> None:
    path, sha256 = artifact
    response = user.http.get(path)
    assert response.status_code == 200 and response.content == DATA
    assert response.headers["etag"] == f'"{sha256}"' and response.headers["accept-ranges"] == "bytes"
    assert response.headers["content-disposition"] == 'attachment; filename="student.safetensors"'
    encoded = base64.b64encode(hashlib.sha256(DATA).digest()).decode()
    assert response.headers["repr-digest"] == f"sha-256=:{encoded}:"
    head = user.http.head(path)
    assert head.status_code == 200 and head.content == b""
    same = ("etag", "content-length", "content-type", "content-disposition", "accept-ranges", "repr-digest")
    assert {name: head.headers[name] for name in same} == {name: response.headers[name] for name in same}
    problem(user.http.get(f"{path}.none"), 404)
    assert user.http.head(f"{path}.none").status_code == 404


def test_an_unchanged_artifact_is_a_304(user: User, artifact: tuple[str, str]) -> None:
    path, sha256 = artifact
    for method in ("GET", "HEAD"):
        response = user.http.request(method, path, headers={"If-None-Match": f'"a", "{sha256}"'})
        assert response.status_code == 304 and response.content == b"" and response.headers["etag"] == f'"{sha256}"'
    assert user.http.get(path, headers={"If-None-Match": '"other"'}).status_code == 200
    # If-None-Match is evaluated before Range (RFC 9110 section 13.2.2)
    both = {"If-None-Match": f'"{sha256}"', "Range": "bytes=0-1"}
    assert user.http.get(path, headers=both).status_code == 304


SIZE = len(DATA)


@pytest.mark.parametrize(
    ("header", "start", "end"),
    [
        ("bytes=0-0", 0, 1),
        ("bytes=0-99", 0, 100),
        ("bytes=100-", 100, SIZE),
        ("bytes=-10", SIZE - 10, SIZE),
        (f"bytes=5-{SIZE + 999}", 5, SIZE),
        (f"bytes=-{SIZE + 999}", 0, SIZE),
        (f"bytes={SIZE - 1}-", SIZE - 1, SIZE),
        ("bytes = 1 - 2", 1, 3),
    ],
)
def test_a_range_is_a_206(user: User, artifact: tuple[str, str], header: str, start: int, end: int) -> None:
    path, sha256 = artifact
    for more in ({}, {"If-Range": f'"{sha256}"'}):
        response = user.http.get(path, headers={"Range": header} | more)
        assert response.status_code == 206 and response.content == DATA[start:end]
        assert response.headers["content-range"] == f"bytes {start}-{end - 1}/{SIZE}"
        assert response.headers["content-length"] == str(end - start)


@pytest.mark.parametrize("header", [f"bytes={SIZE}-", f"bytes={SIZE + 5}-{SIZE + 9}", "bytes=-0"])
def test_a_range_past_the_end_is_a_416(user: User, artifact: tuple[str, str], header: str) -> None:
    response = user.http.get(artifact[0], headers={"Range": header})
    problem(response, 416, "range-not-satisfiable")
    assert response.headers["content-range"] == f"bytes */{SIZE}"


@pytest.mark.parametrize(
    "headers",
    [
        {"Range": "bytes=2-1"}, {"Range": "bytes=-"}, {"Range": "lines=1-2"}, {"Range": "bytes=0-1,4-5"}, {"Range": "x"},
        {"Range": f"bytes={'9' * 5000}-"},
        {"Range": "bytes=0-1", "If-Range": '"other"'}, {"Range": "bytes=0-1", "If-Range": "Sat, 21 Nov 2026 00:00:00 GMT"},
    ],
)  # fmt: skip
def test_an_invalid_range_is_ignored(user: User, artifact: tuple[str, str], headers: dict[str, str]) -> None:
    response = user.http.get(artifact[0], headers=headers)
    assert response.status_code == 200 and response.content == DATA


def test_if_range_with_a_weak_tag_sends_the_whole_file(user: User, artifact: tuple[str, str]) -> None:
    headers = {"Range": "bytes=0-1", "If-Range": f'W/"{artifact[1]}"'}
    assert user.http.get(artifact[0], headers=headers).status_code == 200


def test_an_empty_artifact_with_special_characters_in_its_name(user: User) -> None:
    job = user.job("succeeded")
    user.blob(Artifact, job, 'leer/größe "1".txt', b"")
    [one] = user.http.get(f"/jobs/{job}/artifacts").json()["data"]
    response = user.http.get(f'/jobs/{job}/artifacts/leer/größe "1".txt')
    assert response.status_code == 200 and response.content == b"" and one["size"] == 0
    assert response.headers["content-disposition"] == (
        "attachment; filename=\"gr__e _1_.txt\"; filename*=UTF-8''gr%C3%B6%C3%9Fe%20%221%22.txt"
    )
    assert user.http.get(one["links"]["self"]).status_code == 200
    problem(user.http.get(one["links"]["self"], headers={"Range": "bytes=0-"}), 416)


def test_all_artifacts_are_downloaded_as_one_zip(user: User) -> None:
    job = user.job("succeeded", name="half lenet")
    files = {"student.onnx": DATA, "report.json": b"{}", "empty": b""}
    for name, data in files.items():
        user.blob(Artifact, job, name, data)
    response = user.http.get(f"/jobs/{job}/artifacts.zip")
    assert response.headers["content-type"] == "application/zip"
    assert response.headers["content-disposition"] == 'attachment; filename="half lenet.zip"'
    assert response.headers["content-length"] == str(len(response.content))
    with zipfile.ZipFile(io.BytesIO(response.content)) as archive:
        assert archive.testzip() is None
        assert {name: archive.read(name) for name in archive.namelist()} == files
    problem(user.http.get(f"/jobs/{user.job('running')}/artifacts.zip"), 409, "conflict")


def test_a_zip_is_streamed_in_constant_memory_and_reads_a_blob_when_its_turn_comes() -> None:
    sizes = {"one.bin": 48 << 20, "größe/two.bin": 16 << 20}
    for name, size in sizes.items():
        storage().put(f"jobs/job_1/1/{name}", (bytes(range(256)) * 4096 for _ in range(size >> 20)))
    blobs = [Blob(name, f"jobs/job_1/1/{name}", "application/octet-stream", size, None) for name, size in sizes.items()]
    archive, crc = zipped(blobs), zlib.crc32(bytes(range(256)) * 4096 * 16)
    expected = len(archive)
    tracemalloc.start()
    sent = sum(len(chunk) for chunk in archive)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert sent == expected > 64 << 20 and peak < 24 << 20, peak
    with zipfile.ZipFile(io.BytesIO(b"".join(zipped(blobs)))) as read:
        assert {one.filename: one.file_size for one in read.infolist()} == sizes
        assert crc == read.getinfo("größe/two.bin").CRC and read.testzip() is None
    begun = iter(zipped(blobs))
    assert len(next(begun)) > 0
    storage().delete(blobs[1].key)
    with pytest.raises(NotFound):
        b"".join(begun)


def test_missing_bytes_are_a_410(user: User, artifact: tuple[str, str]) -> None:
    user.service.storage.delete_prefix(artifact[0].split("/")[1] + "/" + artifact[0].split("/")[2])
    response = user.http.get(artifact[0])
    assert "missing from the storage. Retry the job" in problem(response, 410, "gone")["detail"]


@pytest.mark.parametrize("size", [1000, 5 * 2**20 + 3])
@pytest.mark.parametrize("damage", ["flipped", "shorter", "longer", "missing"])
def test_damaged_bytes_are_never_sent_completely(alone: User, size: int, damage: str) -> None:
    job, data = alone.job("succeeded"), bytes(size)
    alone.blob(Artifact, job, "report.json", b"{}")
    alone.blob(Artifact, job, "student.onnx", data)
    key, store = f"jobs/{job}/1/student.onnx", alone.service.storage
    damaged = {"flipped": data[:-1] + b"x", "shorter": data[:-1], "longer": data + b"x"}
    if damage == "missing":
        store.delete(key)
    else:
        store.put(key, damaged[damage])
    for path in ("artifacts/student.onnx", "artifacts.zip"):
        if damage == "longer":
            assert alone.http.get(f"/jobs/{job}/{path}").is_success  # the recorded bytes are all there
        elif damage == "missing" or (size < 2**20 and path.endswith("onnx")):
            problem(alone.http.get(f"/jobs/{job}/{path}"), 410, "gone")
        else:
            with pytest.raises(httpx.RemoteProtocolError):  # the response ends before its announced length
                alone.http.get(f"/jobs/{job}/{path}")
    assert alone.http.get(f"/jobs/{job}/artifacts/report.json").content == b"{}"


def test_downloads_are_redirected_to_a_public_s3(s3: Any, configure: Callable[..., Any], tmp_path: Path) -> None:
    configure(
        storage_url=f"s3://{s3.bucket}/api-{tmp_path.name}", storage_endpoint=s3.endpoint,
        storage_public_endpoint=s3.endpoint, storage_access_key=s3.access_key, storage_secret_key=s3.secret_key,
    )  # fmt: skip
    storage().put("jobs/job_1/1/student.onnx", DATA)
    sha256 = hashlib.sha256(DATA).hexdigest()
    blob = Blob("student.onnx", "jobs/job_1/1/student.onnx", "application/octet-stream", SIZE, sha256)

    def respond(method: str, **headers: str) -> Any:
        raw = [(name.lower().replace("_", "-").encode(), value.encode()) for name, value in headers.items()]
        return serve(Request({"type": "http", "method": method, "headers": raw}), blob)

    redirect = respond("GET")
    assert redirect.status_code == 307 and redirect.headers["cache-control"] == "no-store"
    fetched = httpx.get(redirect.headers["location"], headers={"Range": "bytes=5-9"}, trust_env=False)
    assert fetched.status_code == 206 and fetched.content == DATA[5:10]
    assert "student.onnx" in fetched.headers["content-disposition"]
    assert respond("GET", If_None_Match=f'"{sha256}"').status_code == 304
    assert respond("HEAD").status_code == 200


def test_expired_artifacts_are_a_410_and_the_job_shows_when_they_were_removed(user: User) -> None:
    job = user.job("succeeded", finished_at=1.6e9)
    user.blob(Artifact, job, "student.onnx", b"bytes")
    shown = user.http.get(f"/jobs/{job}").json()
    assert shown["artifacts_expire_at"] is None  # by default they do not expire
    assert shown["history_expire_at"].startswith("2020-12-12")  # 90 days after its end
    with user.service.rows() as session:
        session.execute(delete(Artifact).where(Artifact.job_id == job))
    user.change(job, artifacts_removed_at=1.7e9, history_removed_at=1.7e9)
    shown = user.http.get(f"/jobs/{job}").json()
    assert shown["artifacts_expire_at"] == shown["history_expire_at"] == "2023-11-14T22:13:20Z"
    assert user.http.get(f"/jobs/{job}/artifacts").json()["data"] == []
    for path in ("artifacts/student.onnx", "artifacts.zip"):
        assert "removed on 2023-11-14" in problem(user.http.get(f"/jobs/{job}/{path}"), 410, "gone")["detail"]
    problem(user.http.get(f"/jobs/{job}/previews/x.png"), 404)
    with user.http.stream("GET", f"/jobs/{job}/events", headers={"Accept": "text/event-stream"}) as stream:
        assert "data:" not in stream.read().decode()
