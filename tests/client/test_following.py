import json
from pathlib import Path
from typing import Any

import pytest

from distillery_client import Client, errors, waiting
from tests.client.scripted import Request, Response, Scripted


def event(seq: int, **data: Any) -> dict[str, Any]:
    kind = "status" if "status" in data else "progress"
    return {"seq": seq, "type": kind, "level": "info", "message": "", "data": data}


EVENTS = [event(1, status="running"), *(event(seq, step=seq) for seq in range(2, 9)), event(9, status="succeeded")]


def stream(events: list[dict[str, Any]]) -> bytes:
    return b"".join(f"id: {one['seq']}\ndata: {json.dumps(one)}\n\n".encode() for one in events)


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("distillery_client.events.POLL_SECONDS", 0.01)
    monkeypatch.setattr(waiting, "FIRST_PAUSE_SECONDS", 0.01)


def test_a_broken_stream_is_resumed_without_gaps_or_repeats(server: Scripted, client: Client) -> None:
    def script(request: Request) -> Response:
        after = int(request.headers["Last-Event-ID"])
        rest = stream(EVENTS[after:])
        cut = len(stream(EVENTS[after : after + 3])) + 7 if after < 6 else None
        return Response(200, rest, {"Content-Type": "text/event-stream"}, cut)

    server.script = script
    assert list(client.jobs.watch("job_1")) == EVENTS
    assert len(server.requests) == 3


def test_it_polls_if_streams_are_blocked(server: Scripted, client: Client) -> None:
    served = iter([EVENTS[:2], EVENTS[2:5], [], EVENTS[5:]])

    def script(request: Request) -> Response:
        if "text/event-stream" in request.headers["Accept"]:
            return Response(200, b"<html>", {"Content-Type": "text/html"})
        if request.path == "/v1/jobs/job_1":
            return Response(body=b'{"status": "running"}')
        return Response(body=json.dumps({"data": next(served), "next_cursor": None}).encode())

    server.script = script
    assert list(client.jobs.watch("job_1")) == EVENTS


@pytest.mark.parametrize("streams", [True, False])
def test_following_an_ended_job_returns(server: Scripted, client: Client, streams: bool) -> None:
    def script(request: Request) -> Response:
        if request.path == "/v1/jobs/job_1":
            return Response(body=b'{"status": "succeeded"}')
        if "text/event-stream" in request.headers["Accept"]:
            return Response(204) if streams else Response(200, b"<html>", {"Content-Type": "text/html"})
        return Response(body=b'{"data": [], "next_cursor": null}')

    server.script = script
    assert list(client.jobs.watch("job_1", after=9)) == []


def test_validate_and_retry_send_the_right_requests(server: Scripted, client: Client) -> None:
    server.respond_with(Response(200, b'{"id": "job_2"}'))
    client.jobs.validate({"student": {}}, wait_seconds=7)
    client.jobs.retry("job_1", idempotency_key="mine")
    dry, again = server.requests
    assert (dry.method, dry.path, dry.headers["Prefer"]) == ("POST", "/v1/jobs:validate", "wait=7")
    assert (again.path, again.headers["Idempotency-Key"]) == ("/v1/jobs/job_1/retry", "mine")


def test_metrics_are_sent_between_events(server: Scripted, client: Client) -> None:
    metrics = {"seq": 1, "type": "metrics", "data": {"loss": {"step": 3, "value": 0.5}}}
    body = stream([EVENTS[0], metrics, EVENTS[-1]])
    server.respond_with(Response(200, body, {"Content-Type": "text/event-stream"}))
    assert list(client.jobs.watch("job_1")) == [EVENTS[0], metrics, EVENTS[-1]]


def test_following_an_unknown_job_is_not_found(server: Scripted, client: Client) -> None:
    server.respond_with(Response(404, b'{"detail": "The job job_1 does not exist."}'))
    with pytest.raises(errors.NotFound, match="The job job_1 does not exist"):
        list(client.jobs.watch("job_1"))


def test_waiting_ends_when_the_job_has_ended(server: Scripted, client: Client) -> None:
    states = iter(["queued", None, "running", None, "succeeded"])

    def script(request: Request) -> Response:
        status = next(states)
        if status is None:
            return Response(304, headers={"ETag": '"1"'})
        return Response(body=json.dumps({"status": status}).encode(), headers={"ETag": '"1"'})

    server.script = script
    assert client.jobs.wait("job_1")["status"] == "succeeded"
    assert all(request.headers["Prefer"].startswith("wait=") for request in server.requests[1:])


@pytest.mark.parametrize("status", ["failed", "cancelled"])
def test_waiting_for_a_job_that_does_not_succeed_raises(server: Scripted, client: Client, status: str) -> None:
    body = {"id": "job_1", "status": status, "error": {"message": "diverged"} if status == "failed" else None}
    server.respond_with(Response(body=json.dumps(body).encode()))
    with pytest.raises(errors.JobEnded, match=r"diverged|was cancelled"):
        client.jobs.wait("job_1")


def test_a_wait_has_a_timeout(server: Scripted, client: Client) -> None:
    server.respond_with(Response(body=b'{"status": "running"}'))
    with pytest.raises(errors.StillWaiting):
        client.jobs.wait("job_1", timeout_seconds=0.2)


def test_an_upload_whose_response_was_lost_is_recognised(server: Scripted, client: Client, tmp_path: Path) -> None:
    sha256 = "2ccf55aeaaeaba6c6bb5a17d6a0b9c4a"  # of other bytes
    file = tmp_path / "teacher.safetensors"
    file.write_bytes(b"weights")
    from distillery_client.uploads import sha256_of

    stored = iter([sha256_of(file), sha256])

    def script(request: Request) -> Response:
        if request.method == "PUT":
            return Response(409, b'{"detail": "This teacher already has its bytes."}')
        return Response(body=json.dumps({"id": "tch_1", "status": "inspecting", "sha256": next(stored)}).encode())

    server.script = script
    record = {"id": "tch_1", "upload": f"{server.url}/v1/teachers/tch_1/content"}
    assert client.teachers.upload(record, file)["status"] == "inspecting"
    with pytest.raises(errors.Conflict):
        client.teachers.upload(record, file)
