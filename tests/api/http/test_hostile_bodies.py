"""A body costs little before its sender is known, and in all cases a time proportional to its length."""

import json
import socket
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import httpx
import psutil
import pytest

from api.http.bodies import MAX_FIELDS, MAX_FIELDS_IN_ALL, parse
from api.http.errors import MOST_ERRORS, MalformedJson
from tests.api.service import Service, User, problem

JSON = {"Content-Type": "application/json"}
TWICE = ("{" + ",".join(f'"n{number}":1' for number in range(20_000)) + ',"n19999":1}').encode()
MANY = [[{f"x{number:05}": 1 for number in range(MAX_FIELDS)} for _ in range(MAX_FIELDS_IN_ALL // MAX_FIELDS)]]


@contextmanager
def processor_time(service: Service) -> Iterator[Callable[[], float]]:
    """Measures the processor time of the service, in seconds; other work of the machine does not change it."""
    process = psutil.Process(service.process.pid)

    def used() -> float:
        times = process.cpu_times()
        return float(times.user + times.system)

    before = used()
    yield lambda: used() - before


@pytest.mark.parametrize("path", ["/jobs", "/jobs:validate", "/teachers", "/keys", "/webhooks/secret"])
def test_no_body_is_read_before_the_key_is_known(embedded: Service, path: str) -> None:
    with socket.create_connection(("127.0.0.1", int(embedded.url.rpartition(":")[2])), timeout=10) as client:
        head = f"POST /v1{path} HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: 1000\r\n\r\n"
        client.sendall(head.encode())  # and none of the thousand bytes
        assert client.recv(64).startswith(b"HTTP/1.1 401 ")


def test_a_body_without_a_key_costs_nothing(embedded: Service) -> None:
    with processor_time(embedded) as seconds:
        problem(httpx.post(f"{embedded.url}/v1/jobs", content=TWICE, headers=JSON, trust_env=False, timeout=60), 401)
    assert seconds() < 1


def test_a_large_body_with_a_key_costs_little(alone: User) -> None:
    unknown = json.dumps({"objectives": [{"name": "kd"} | one for one in MANY[0]]}).encode()
    with processor_time(alone.service) as seconds:
        for body in (TWICE, unknown, json.dumps({"labels": [1] * 400_000}).encode()):
            response = alone.http.post("/jobs", content=body[: 2**20], headers=JSON)
            assert response.status_code in (400, 422)
            assert len(response.content) < 100_000
    assert seconds() < 3


def test_only_the_first_errors_are_listed_and_all_are_counted(alone: User) -> None:
    wrong = {f"x{number}": 1 for number in range(MAX_FIELDS)}
    document = problem(alone.http.post("/teachers", json=wrong), 422, "invalid")
    assert len(document["errors"]) == MOST_ERRORS
    assert int(document["detail"].split()[0]) >= MAX_FIELDS
    assert f"The first {MOST_ERRORS} are listed" in document["detail"]


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        (TWICE, "1000 fields"),
        (json.dumps(dict.fromkeys(map(str, range(MAX_FIELDS + 1)))).encode(), "1000 fields"),
        (json.dumps([*MANY[0], {"x": 1}]).encode(), "20000"),
        (json.dumps({"x" * 1025: 1}).encode(), "1025 characters"),
        (b'{"' + b"x" * 1000 + b'": 1, "' + b"x" * 1000 + b'": 1}', "appears twice"),
    ],
)
def test_the_fields_of_a_body_are_limited(body: bytes, expected: str) -> None:
    with pytest.raises(MalformedJson, match=expected) as error:
        parse(body)
    assert len(error.value.detail) < 200


def test_as_many_fields_as_allowed_are_read() -> None:
    assert len(parse(json.dumps(MANY[0]).encode())) == MAX_FIELDS_IN_ALL // MAX_FIELDS
