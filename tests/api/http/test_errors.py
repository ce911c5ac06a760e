"""Every error is a problem document, including FastAPI's own errors."""

import asyncio
import json
import socket
import time

import httpx
import pytest
from fastapi import FastAPI
from sqlalchemy import text

from api.http import problem_documents
from api.http.errors import ApiError
from api.http.observe import Observe
from api.main import create_app
from models.database import reading
from tests.api.service import TEACHER, User, pointers, problem

JSON = {"Content-Type": "application/json"}


def in_process(app: FastAPI, path: str, **options: object) -> httpx.Response:
    async def call() -> httpx.Response:
        transport = httpx.ASGITransport(app=app, raise_app_exceptions=False)
        async with httpx.AsyncClient(transport=transport, base_url="http://test") as client:
            return await client.get(path, **options)  # type: ignore[arg-type]

    return asyncio.run(call())


def test_every_error_has_a_status_a_kind_and_a_title() -> None:
    def tree(cls: type[ApiError]) -> list[type[ApiError]]:
        return [cls, *(one for child in cls.__subclasses__() for one in tree(child))]

    kinds = [one.kind for one in tree(ApiError)]
    assert len({(one.kind, one.status) for one in tree(ApiError)}) == len(set(kinds))
    assert all(one.title and 400 <= one.status < 600 for one in tree(ApiError))


@pytest.mark.parametrize(
    ("path", "expected"), [("/nope", "/nope"), ("/v1/jobs/", "/v1/jobs/"), ("/v1/jobs/x/y", "x/y")]
)
def test_an_unknown_path_is_a_404(alone: User, path: str, expected: str) -> None:
    assert expected in problem(alone.http.get(f"{alone.service.url}{path}"), 404, "not-found")["detail"]


@pytest.mark.parametrize(
    ("path", "allowed"),
    [
        ("/v1/jobs", "GET, HEAD, POST"),
        ("/v1/jobs/x", "DELETE, GET, HEAD"),
        ("/v1/jobs/x/artifacts/a/b", "GET, HEAD"),
        ("/v1/keys/me", "GET, HEAD"),
        ("/metrics", "GET, HEAD"),
    ],
)
def test_an_unsupported_method_is_a_405_that_lists_the_supported_ones(alone: User, path: str, allowed: str) -> None:
    response = alone.http.put(f"{alone.service.url}{path}")
    problem(response, 405, "method-not-allowed")
    assert response.headers["allow"] == allowed


@pytest.mark.parametrize(
    ("path", "meant"), [("/v1/jobs/", "/v1/jobs"), ("/jobs", "/v1/jobs"), ("/v1//jobs", "/v1/jobs")]
)
def test_a_path_that_is_nearly_right_is_told_the_right_one(alone: User, path: str, meant: str) -> None:
    response = alone.http.get(f"{alone.service.url}{path}")
    assert problem(response, 404)["detail"].endswith(f"does not exist. Did you mean {meant}?")


def test_an_unknown_parameter_is_refused_and_not_ignored(alone: User) -> None:
    found = problem(alone.http.get("/jobs?state=running&limit=3"), 422, "invalid")
    assert [each["pointer"] for each in found["errors"]] == ["state"]
    assert "known are" in found["errors"][0]["message"] and "status" in found["errors"][0]["message"]


def test_an_encoded_json_body_is_a_415(alone: User) -> None:
    headers = {"Content-Encoding": "gzip", "Content-Type": "application/json"}
    problem(alone.http.post("/datasets", content=b"\x1f\x8b", headers=headers), 415)


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        (b"{", "line 1"),
        (b'{"a": NaN}', "NaN"),
        (b'{"a": -Infinity}', "Infinity"),
        (b'{"a": 1e999}', "too large"),
        (b'{"a": 1, "a": 2}', "twice"),
        (b'{"a": "\\u0000"}', "NUL"),
        (b'{"a": "\\ud800"}', "surrogate"),
        (b'{"\xff": 1}', "UTF-8"),
        (b"[" * 100 + b"]" * 100, "nested"),
        (b"[" * 100_000 + b"]" * 100_000, "nested"),
        (b"1" * 5000, "4300"),
    ],
)
def test_malformed_json_is_a_400(alone: User, body: bytes, expected: str) -> None:
    for path in ("/jobs", "/jobs:validate", "/teachers", "/datasets", "/files"):
        assert expected in problem(alone.http.post(path, content=body, headers=JSON), 400, "malformed-json")["detail"]


def test_the_size_of_a_json_body_is_limited(alone: User) -> None:
    large = json.dumps(TEACHER | {"name": "x" * 2**20}).encode()
    problem(alone.http.post("/teachers", content=large, headers=JSON), 413, "too-large")
    problem(alone.http.post("/teachers", content=iter([large]), headers=JSON), 413, "too-large")


def test_a_body_of_another_type_is_a_415(alone: User) -> None:
    body = json.dumps(TEACHER).encode()
    problem(alone.http.post("/teachers", content=body, headers={"Content-Type": "text/plain"}), 415)
    problem(alone.http.post("/teachers", content=body), 415)
    assert alone.http.post("/teachers", content=body, headers={"Content-Type": "application/problem+json"}).is_success


def test_a_missing_body_has_the_empty_pointer(alone: User) -> None:
    assert pointers(alone.http.post("/teachers")) == [""]


def test_an_invalid_body_lists_every_problem(alone: User) -> None:
    wrong = {
        "network": "lenet5",
        "classes": 0,
        "input": {"channels": 1, "height": 32, "width": "x", "std": [1]},
        "odd": 1,
    }
    assert set(pointers(alone.http.post("/teachers", json=wrong))) == {
        "/classes", "/input/width", "/input/mean", "/odd",
    }  # fmt: skip


def test_invalid_parameters_are_named(alone: User) -> None:
    assert pointers(alone.http.get("/jobs", params={"limit": 0})) == ["limit"]
    assert (
        alone.http.get("/jobs", params={"limit": 10**30}).status_code == 200
    )  # values above the maximum mean the maximum
    assert pointers(alone.http.get("/jobs", params={"created_after": "yesterday"})) == ["created_after"]
    assert pointers(alone.http.get("/jobs", params={"status": "odd"})) == ["status.0"]
    assert pointers(alone.http.get("/jobs", params={"label": "team"})) == ["label"]


@pytest.mark.parametrize("cursor", ["x", "!!!", "e30", "bnVsbA", "\u00e9", "am9iX3p6eg"])
def test_an_unknown_cursor_is_a_400(alone: User, cursor: str) -> None:
    problem(alone.http.get("/jobs", params={"cursor": cursor}), 400, "bad-cursor")
    job = alone.job()
    problem(alone.http.get(f"/jobs/{job}/metrics", params={"cursor": cursor}), 400, "bad-cursor")
    problem(alone.http.get(f"/jobs/{job}/events", params={"cursor": cursor}), 400, "bad-cursor")


def test_ids_with_special_characters_are_404s(user: User) -> None:
    for identifier in ("job_%00", "%00", "x" * 64, "..%2f..%2fx", "job_%F0%9F%98%80", "'"):
        problem(user.http.get(f"/jobs/{identifier}"), 404)
        problem(user.http.get(f"/teachers/{identifier}"), 404)


def test_a_request_id_is_adopted_or_generated(alone: User) -> None:
    assert alone.http.get("/jobs", headers={"X-Request-ID": "mine-1"}).headers["x-request-id"] == "mine-1"
    assert problem(alone.http.get("/jobs/x", headers={"X-Request-ID": "mine-2"}), 404)["request_id"] == "mine-2"
    made = {
        alone.http.get("/jobs", headers={"X-Request-ID": odd}).headers["x-request-id"] for odd in ("a b", "", "x" * 200)
    }
    assert len(made) == 3 and not made & {"a b", "", "x" * 200}


def test_an_exception_is_a_500_without_internal_details() -> None:
    app = FastAPI()
    problem_documents.install(app)
    app.add_middleware(Observe)

    @app.get("/")
    def fail() -> None:
        raise RuntimeError("the secret")

    response = in_process(app, "/")
    problem(response, 500, "internal")
    assert "secret" not in response.text


def test_an_unavailable_database_is_a_503(configure: object) -> None:
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))  # bound but not listening: connections are refused
        url = f"postgresql+psycopg://nobody@127.0.0.1:{unused.getsockname()[1]}/none?connect_timeout=2"
        configure(database_url=url)  # type: ignore[operator]
        app = create_app()
        response = in_process(app, "/v1/jobs", headers={"Authorization": "Bearer dsk_" + "x" * 43})
        assert "database" in problem(response, 503, "unavailable")["detail"]
        assert response.headers["retry-after"] == "5"
        assert problem(in_process(app, "/health/ready"), 503)["checks"] == {
            "database": "does not answer", "storage": "ok", "broker": "ok",
        }  # fmt: skip
        assert in_process(app, "/health/live").is_success
        assert "distillery_http_requests_total" in in_process(app, "/metrics").text


def test_a_transaction_closed_by_the_database_is_a_503(configure: object, postgres_url: str) -> None:
    configure(database_url=postgres_url, lease_seconds=0.4, beat_seconds=0.1)  # type: ignore[operator]
    app = FastAPI()
    problem_documents.install(app)
    app.add_middleware(Observe)

    @app.get("/")
    def dawdle() -> None:
        with reading() as session:
            session.execute(text("SELECT 1"))
            time.sleep(0.5)  # longer than the idle timeout, a quarter of the lease
            session.execute(text("SELECT 1"))

    assert "database" in problem(in_process(app, "/"), 503, "unavailable")["detail"]


def test_an_unavailable_storage_is_a_503(configure: object, migrated_sqlite: str) -> None:
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        endpoint = f"http://127.0.0.1:{unused.getsockname()[1]}"
        broker = f"redis://127.0.0.1:{unused.getsockname()[1]}/0"
        keys = {"storage_access_key": "a", "storage_secret_key": "b"}
        configure(storage_url="s3://none", storage_endpoint=endpoint, broker_url=broker, **keys)  # type: ignore[operator]
        checks = problem(in_process(create_app(), "/health/ready"), 503)["checks"]
        assert checks == {"database": "ok", "storage": "does not answer", "broker": "does not answer"}


def test_a_nul_in_an_id_is_not_ignored(user: User) -> None:
    teacher, job = user.teacher(), user.job()
    for path in (f"/teachers/{teacher}", f"/jobs/{job}", f"/jobs/{job}/events", f"/jobs/{job}/artifacts/x"):
        before, after = path[:-3], path[-3:]
        for odd in (f"{path}%00", f"{before}%00{after}"):
            problem(user.http.get(odd), 404, "not-found")


def test_names_of_media_types_and_codings_are_case_insensitive(alone: User) -> None:
    upload = alone.http.post("/teachers", json=TEACHER).json()["upload"]
    for headers in ({"Content-Type": "Multipart/Form-Data; boundary=x"}, {"Content-Encoding": "GZIP"}):
        problem(alone.http.put(upload, content=b"x", headers=headers), 415, "unsupported-media-type")
    assert alone.http.put(upload, content=b"x", headers={"Content-Encoding": "Identity"}).status_code == 202
