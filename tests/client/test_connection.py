import json
import time
from email.utils import formatdate

import httpx
import pytest

from distillery_client import Client, errors
from distillery_client.connection import retry_after_seconds
from tests.client.scripted import Response, Scripted


@pytest.mark.parametrize("status", [408, 429, 502, 503, 504])
def test_an_idempotent_request_is_retried(server: Scripted, client: Client, status: int) -> None:
    server.respond_with(Response(status), Response(status), Response(body=b'{"id": "job_1"}'))
    assert client.jobs.get("job_1") == {"id": "job_1"}
    assert len(server.requests) == 3


def test_retry_after_is_respected(server: Scripted, client: Client) -> None:
    server.respond_with(Response(503, headers={"Retry-After": "1"}), Response(body=b"{}"))
    started = time.monotonic()
    client.jobs.get("job_1")
    assert 1.0 <= time.monotonic() - started < 3.0


def test_a_very_long_retry_after_is_not_retried(server: Scripted, client: Client) -> None:
    server.respond_with(Response(429, headers={"Retry-After": "3600"}))
    with pytest.raises(errors.Unavailable):
        client.jobs.get("job_1")
    assert len(server.requests) == 1


def test_retry_after_can_be_a_date() -> None:
    response = httpx.Response(503, headers={"Retry-After": formatdate(time.time() + 30, usegmt=True)})
    assert retry_after_seconds(response) == pytest.approx(30, abs=2)
    assert retry_after_seconds(httpx.Response(503, headers={"Retry-After": "soon"})) is None
    assert retry_after_seconds(httpx.Response(503)) is None


@pytest.mark.parametrize("status", [400, 401, 404, 409, 422, 500])
def test_other_statuses_are_not_retried(server: Scripted, client: Client, status: int) -> None:
    server.respond_with(Response(status))
    with pytest.raises(errors.Refused) as caught:
        client.jobs.get("job_1")
    assert caught.value.status == status
    assert len(server.requests) == 1


def test_a_request_that_is_not_idempotent_is_not_retried(server: Scripted, client: Client) -> None:
    server.respond_with(Response(503))
    with pytest.raises(errors.Unavailable):
        client.teachers.create(name="t")
    assert len(server.requests) == 1


def test_a_submission_is_retried_with_one_idempotency_key(server: Scripted, client: Client) -> None:
    server.respond_with(Response(body=b'{"id"', cut=3), Response(503), Response(202, b'{"id": "job_1"}'))
    assert client.jobs.submit({"teacher": "tch_1"})["id"] == "job_1"
    keys = {request.headers["Idempotency-Key"] for request in server.requests}
    assert len(server.requests) == 3 and len(keys) == 1
    client.jobs.submit({"teacher": "tch_1"})
    assert server.requests[-1].headers["Idempotency-Key"] not in keys


def test_a_problem_document_becomes_an_error(server: Scripted, client: Client) -> None:
    problem = {
        "type": "urn:distillery:problem:invalid",
        "title": "Invalid request",
        "status": 422,
        "detail": "One value is not valid.",
        "request_id": "abc",
        "errors": [{"pointer": "/objectives/0/temperature", "message": "must be greater than 0"}],
    }
    server.respond_with(Response(422, json.dumps(problem).encode(), {"Content-Type": "application/problem+json"}))
    with pytest.raises(errors.InvalidRequest, match="One value is not valid") as caught:
        client.jobs.submit({})
    assert caught.value.errors == problem["errors"]
    assert caught.value.request_id == "abc"


def test_an_error_without_a_problem_document_has_its_text(server: Scripted, client: Client) -> None:
    server.respond_with(Response(404, b"<html>nothing here"))
    with pytest.raises(errors.NotFound, match="nothing here"):
        client.jobs.get("job_1")


def test_a_server_that_does_not_listen_is_unreachable() -> None:
    with Client("http://127.0.0.1:9", "dsk_test", attempts=2) as client, pytest.raises(errors.Unreachable):
        client.jobs.get("job_1")


def test_pages_are_fetched_until_the_last_one(server: Scripted, client: Client) -> None:
    pages = {
        "/v1/jobs?status=running": {"data": [{"id": "job_3"}, {"id": "job_2"}], "next_cursor": "abc"},
        "/v1/jobs?status=running&cursor=abc": {"data": [{"id": "job_1"}], "next_cursor": None},
    }
    server.script = lambda request: Response(body=json.dumps(pages[request.path]).encode())
    assert [job["id"] for job in client.jobs.list(status="running")] == ["job_3", "job_2", "job_1"]
