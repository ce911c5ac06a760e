"""Clients that send or read too slowly are ended, and take little memory until then."""

import json
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import psutil
import pytest

from models.records import Artifact
from tests.api.service import TEACHER, Service, User, problem, running

SECONDS = 1.5


@pytest.fixture(scope="module")
def strict(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    """An API that waits for clients for a short time only."""
    settings = {"client_seconds": SECONDS, "body_bytes_a_second": 1000, "uploads_at_once": 3}
    with running(tmp_path_factory.mktemp("strict"), **settings) as service:
        yield service


@pytest.fixture
def sender(strict: Service) -> Iterator[User]:
    with strict.user() as user:
        yield user


def connected(service: Service) -> socket.socket:
    return socket.create_connection(("127.0.0.1", int(service.url.rpartition(":")[2])), timeout=90)


def everything(client: socket.socket) -> bytes:
    """All that the service sends until it ends the connection."""
    received = b""
    while chunk := client.recv(65536):
        received += chunk
    return received


def put_head(user: User, length: int = 2**30) -> bytes:
    record = user.http.post("/teachers", json=TEACHER).json()
    path = record["upload"].removeprefix(user.service.url)
    return f"PUT {path} HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {user.key}\r\nContent-Length: {length}\r\n\r\n".encode()


def document(response: bytes) -> tuple[int, dict[str, object]]:
    """Status and problem document of a raw response."""
    head, _, body = response.partition(b"\r\n\r\n")
    assert b"content-type: application/problem+json" in head
    return int(head.split()[1]), json.loads(body)


@pytest.mark.parametrize("sent", [b"", b"GET /v1/jobs HTTP/1.1\r\nHost: x\r\nX-Slow: "])
def test_a_head_that_does_not_arrive_ends_the_connection(strict: Service, sent: bytes) -> None:
    with connected(strict) as client:
        client.sendall(sent)
        began = time.monotonic()
        response = everything(client)
    assert time.monotonic() - began < SECONDS + 60
    if sent:
        status, problem_document = document(response)
        assert (status, problem_document["type"]) == (408, "urn:distillery:problem:too-slow")
    else:
        assert response == b""


def test_a_head_that_arrives_byte_by_byte_ends_the_connection(strict: Service) -> None:
    with connected(strict) as client:
        client.sendall(b"GET /v1/jobs HTTP/1.1\r\n")
        client.settimeout(0.1)
        give_up = time.monotonic() + SECONDS + 60
        received = b""
        while not received and time.monotonic() < give_up:
            try:
                client.sendall(b"x")
                received = client.recv(65536)
            except TimeoutError:
                continue
    assert document(received)[0] == 408


def test_many_unfinished_heads_do_not_stay(strict: Service) -> None:
    clients = [connected(strict) for _ in range(200)]
    try:
        for client in clients:
            client.sendall(b"GET /health/live HTTP/1.1\r\nX: ")
        assert all(document(everything(client))[0] == 408 for client in clients)
    finally:
        for client in clients:
            client.close()


def test_a_head_without_end_is_a_431(strict: Service) -> None:
    with connected(strict) as client:
        client.sendall(b"GET /health/live HTTP/1.1\r\nX: ")
        response = b""
        for _ in range(64):
            try:
                client.sendall(b"x" * 2**16)
            except OSError:
                break
        try:
            response = everything(client)
        except ConnectionResetError:
            return  # the service closed while more was being sent
    assert document(response)[0] == 431


@pytest.mark.parametrize(
    "request_line", [b"nonsense\r\n\r\n", b"GET / HTTP/9.9\r\n\r\n", b"GET /\x00 HTTP/1.1\r\n\r\n"]
)
def test_what_is_not_http_is_a_problem_document(strict: Service, request_line: bytes) -> None:
    with connected(strict) as client:
        client.sendall(request_line)
        status, found = document(everything(client))
    assert (status, found["type"]) == (400, "urn:distillery:problem:bad-request")
    assert found["request_id"] and found["detail"]


def test_no_long_queue_of_requests_forms_on_a_connection(sender: User) -> None:
    job = sender.job("running")
    head = f"Host: x\r\nAuthorization: Bearer {sender.key}\r\n"
    first = f"GET /v1/jobs/{job} HTTP/1.1\r\n{head}Prefer: wait=30\r\n\r\n"
    with connected(sender.service) as client:
        client.sendall((first + f"GET /health/live HTTP/1.1\r\n{head}\r\n" * 5000).encode())
        began = time.monotonic()
        with suppress(ConnectionResetError):  # the service closed while more was being sent
            assert everything(client) == b""
    assert time.monotonic() - began < 25


@pytest.mark.parametrize("sent", [0, 12 * 2**20])
def test_an_upload_that_stalls_is_a_408_and_leaves_nothing(sender: User, sent: int) -> None:
    before = {entry.key for entry in sender.service.storage.list("uploads")}
    with connected(sender.service) as client:
        client.sendall(put_head(sender) + bytes(sent))
        response = everything(client)  # the connection ends, although the rest of the body never arrives
        assert document(response)[0] == 408
        assert b"x-request-id" in response
    assert {entry.key for entry in sender.service.storage.list("uploads")} <= before
    assert not list((sender.service.data / "blobs").rglob("*#*"))


def test_an_upload_that_drips_is_a_408(sender: User) -> None:
    with connected(sender.service) as client:
        client.sendall(put_head(sender))
        client.settimeout(0.1)
        give_up = time.monotonic() + SECONDS + 60
        received = b""
        while not received and time.monotonic() < give_up:
            try:
                client.sendall(b"xx")
                received = client.recv(65536)
            except TimeoutError:
                continue
    assert received.startswith(b"HTTP/1.1 408 ")


def test_an_upload_that_is_slow_but_fast_enough_succeeds(sender: User) -> None:
    with connected(sender.service) as client:
        client.sendall(put_head(sender, 40_000))
        for _ in range(40):  # four seconds: longer than the limit for a stall
            client.sendall(bytes(1000))
            time.sleep(0.1)
        assert client.recv(65536).startswith(b"HTTP/1.1 202 ")


def test_a_json_body_that_stalls_is_a_408(sender: User) -> None:
    head = f"POST /v1/teachers HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {sender.key}\r\n"
    with connected(sender.service) as client:
        client.sendall((head + 'Content-Type: application/json\r\nContent-Length: 100\r\n\r\n{"name"').encode())
        assert document(everything(client))[0] == 408


def test_a_body_that_never_ends_after_its_response_ends_the_connection(strict: Service) -> None:
    with connected(strict) as client:
        client.sendall(b"POST /v1/jobs HTTP/1.1\r\nHost: x\r\nContent-Length: 1000000\r\n\r\n")
        client.settimeout(0.1)
        received, ended, give_up = b"", False, time.monotonic() + SECONDS + 60
        while not ended and time.monotonic() < give_up:
            try:
                client.sendall(b"x")
                chunk = client.recv(65536)
                received, ended = received + chunk, not chunk
            except TimeoutError:
                continue
            except OSError:
                ended = True
    assert ended and b" 401 " in received


def test_a_client_that_does_not_read_its_download_is_ended(sender: User) -> None:
    job = sender.job("succeeded")
    sender.blob(Artifact, job, "large", bytes(32 * 2**20))
    head = f"GET /v1/jobs/{job}/artifacts/large HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {sender.key}\r\n\r\n"
    with connected(sender.service) as client:
        client.sendall(head.encode())
        assert client.recv(100)
        port = client.getsockname()[1]
        assert port in open_ports(sender.service)
        give_up = time.monotonic() + SECONDS + 60
        while port in open_ports(sender.service):
            assert time.monotonic() < give_up, "the connection stays"
            time.sleep(0.2)


def open_ports(service: Service) -> set[int]:
    """The clients' ports of the service's open connections."""
    return {each.raddr.port for each in psutil.Process(service.process.pid).net_connections("tcp") if each.raddr}


def test_one_key_sends_only_some_uploads_at_once(sender: User) -> None:
    clients = [connected(sender.service) for _ in range(4)]
    try:
        for client in clients[:3]:
            client.sendall(put_head(sender))
        give_up = time.monotonic() + 60
        while True:
            refused = sender.http.put(sender.http.post("/teachers", json=TEACHER).json()["upload"], content=b"x")
            if refused.status_code == 429 or time.monotonic() > give_up:
                break
        assert "at the same time" in problem(refused, 429, "too-many")["detail"]
        assert refused.headers["retry-after"]
        with sender.service.user() as other:
            record = other.http.post("/teachers", json=TEACHER).json()
            assert other.http.put(record["upload"], content=b"x").status_code == 202
    finally:
        for client in clients:
            client.close()


def resident_bytes(service: Service) -> int:
    lines = Path(f"/proc/{service.process.pid}/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("VmRSS"))


def test_stalled_uploads_take_little_memory(tmp_path: Path) -> None:
    with running(tmp_path, uploads_at_once=100) as service, service.user() as user:
        heads = [put_head(user) for _ in range(40)]
        before = resident_bytes(service)
        clients = [connected(service) for _ in heads]

        def send(client: socket.socket, head: bytes) -> None:
            client.sendall(head + bytes(12 * 2**20))

        threads = [threading.Thread(target=send, args=each) for each in zip(clients, heads, strict=True)]
        try:
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join()
            assert service.peak_bytes - before < 40 * 4 * 2**20
        finally:
            for client in clients:
                client.close()
