"""Teachers, datasets and files: create, upload, list, change, delete."""

import base64
import hashlib
import threading
import time
from collections.abc import Iterator
from typing import Any

import httpx
import pytest
from sqlalchemy import select

from models.records import Dataset, File, Inspection, Teacher
from tests.api.service import FINDINGS, TEACHER, Service, User, pointers, problem

BODIES: dict[str, tuple[dict[str, Any], Any]] = {
    "teachers": (TEACHER, Teacher),
    "datasets": ({"name": "digits"}, Dataset),
    "files": ({"kind": "weights"}, File),
}
BYTES = b"\x00\x01weights" * 1000
KINDS = pytest.mark.parametrize("kind", BODIES)


def created(user: User, kind: str = "teachers", **values: Any) -> dict[str, Any]:
    response = user.http.post(f"/{kind}", json=BODIES[kind][0] | values)
    assert response.status_code == 201, response.text
    assert response.headers["location"] == response.json()["links"]["self"]
    return dict(response.json())


def stored(service: Service, folder: str) -> list[str]:
    return [entry.key for entry in service.storage.list(folder)]


def set_status(user: User, kind: str, identifier: str, status: str, **values: Any) -> None:
    with user.service.rows() as session:
        row = session.get_one(BODIES[kind][1], identifier)
        row.status = status
        for name, value in values.items():
            setattr(row, name, value)


@KINDS
def test_the_life_cycle_of_an_upload(user: User, kind: str) -> None:
    record = created(user, kind, labels={"team": "vision"})
    assert record["status"] == "waiting" and record["labels"] == {"team": "vision"}
    response = user.http.put(record["upload"], content=BYTES)
    assert response.status_code == 202
    sent = response.json()
    assert sent["status"] == "inspecting"
    assert (sent["size"], sent["sha256"]) == (len(BYTES), hashlib.sha256(BYTES).hexdigest())
    with user.service.rows() as session:
        row = session.get_one(BODIES[kind][1], record["id"])
        inspection = session.scalars(select(Inspection).where(Inspection.subject_id == record["id"])).one()
    assert row.key_id == user.key_id
    assert (inspection.kind, inspection.status) == (kind[:-1], "queued")
    assert b"".join(user.service.storage.get(row.upload_key)) == BYTES
    shown = user.http.get(f"/{kind}/{record['id']}")
    assert shown.json() == sent
    assert user.http.get(f"/{kind}").json() == {"data": [sent], "next_cursor": None}
    problem(user.http.put(record["upload"], content=BYTES), 409, "conflict")
    assert user.http.delete(f"/{kind}/{record['id']}").status_code == 204
    problem(user.http.get(f"/{kind}/{record['id']}"), 404)
    assert stored(user.service, f"uploads/{record['id']}") == []


@KINDS
def test_only_name_and_labels_can_be_changed(user: User, kind: str) -> None:
    record = created(user, kind, labels={"a": "1"})
    address = f"/{kind}/{record['id']}"
    assert user.http.patch(address, json={"name": "new"}).json()["labels"] == {"a": "1"}
    assert user.http.patch(address, json={"labels": {}}).json()["name"] == "new"
    assert pointers(user.http.patch(address, json={"status": "ready"})) == ["/status"]
    assert pointers(user.http.patch(address, json={"name": None})) == ["/name"]
    assert pointers(user.http.patch(address, json={"name": ""})) == ["/name"]
    assert user.http.get(address).json()["updated_at"] > record["updated_at"]


def test_a_ready_upload_shows_its_findings_and_accepts_no_more_bytes(user: User) -> None:
    teacher = user.teacher()
    assert user.http.get(f"/teachers/{teacher}").json()["findings"] == FINDINGS
    problem(user.http.put(f"/teachers/{teacher}/content", content=BYTES), 409, "conflict")


def test_a_rejected_upload_shows_its_problem_and_accepts_other_bytes(user: User) -> None:
    why = {"code": "rejected", "message": "It is a pickle.", "hint": "Save a state dict.", "fault": "user"}
    teacher = user.teacher("rejected", problem=why | {"errors": [{"pointer": "", "message": "It is a pickle."}]})
    shown = user.http.get(f"/teachers/{teacher}").json()["problem"]
    assert (shown["code"], shown["detail"], shown["hint"]) == ("rejected", "It is a pickle.", "Save a state dict.")
    assert shown["errors"] == [{"pointer": "", "message": "It is a pickle."}]
    again = user.http.put(f"/teachers/{teacher}/content", content=BYTES)
    assert again.status_code == 202 and again.json()["problem"] is None


def test_prefer_wait_responds_with_the_result_of_the_inspection(user: User) -> None:
    record = created(user)

    def inspect() -> None:
        deadline = time.monotonic() + 20
        while time.monotonic() < deadline:
            if user.http.get(f"/teachers/{record['id']}").json()["status"] == "inspecting":
                return set_status(user, "teachers", record["id"], "rejected", problem={"message": "No."})
            time.sleep(0.1)
        return None

    inspector = threading.Thread(target=inspect)
    inspector.start()
    response = user.http.put(record["upload"], content=BYTES, headers={"Prefer": "respond-async, wait=25"})
    inspector.join()
    assert response.status_code == 200 and response.json()["status"] == "rejected"
    assert response.json()["problem"]["detail"] == "No."
    assert response.headers["preference-applied"] == "wait=25"


def test_prefer_wait_responds_with_the_current_state_after_its_time(alone: User) -> None:
    record = created(alone)
    started = time.monotonic()
    response = alone.http.put(record["upload"], content=BYTES, headers={"Prefer": "wait=1"})
    assert response.status_code == 202 and time.monotonic() - started >= 1
    etag = alone.http.get(f"/teachers/{record['id']}").headers["etag"]
    waited = alone.http.get(f"/teachers/{record['id']}", headers={"If-None-Match": etag, "Prefer": "wait=1"})
    assert waited.status_code == 304
    set_status(alone, "teachers", record["id"], "ready")
    started = time.monotonic()
    ready = alone.http.get(f"/teachers/{record['id']}", headers={"If-None-Match": etag, "Prefer": "wait=20"})
    assert ready.json()["status"] == "ready" and time.monotonic() - started < 10


def _digest(data: bytes) -> str:
    return f"sha-256=:{base64.b64encode(hashlib.sha256(data).digest()).decode()}:"


@pytest.mark.parametrize("header", ["Content-Digest", "Repr-Digest"])
def test_a_digest_header_is_checked(alone: User, header: str) -> None:
    record = created(alone)
    link, wrong = record["upload"], _digest(b"other")
    problem(alone.http.put(link, content=BYTES, headers={header: wrong}), 400, "digest-mismatch")
    assert alone.http.get(f"/teachers/{record['id']}").json()["status"] == "waiting"
    assert stored(alone.service, f"uploads/{record['id']}") == []
    problem(alone.http.put(link, content=BYTES, headers={header: "sha-256=:xx:"}), 400, "bad-header")
    problem(alone.http.put(link, content=BYTES, headers={header: "sha-256=xx"}), 400, "bad-header")
    both = f"md5=:AAAA:, {_digest(BYTES)}"
    assert alone.http.put(link, content=BYTES, headers={header: both}).status_code == 202


def test_older_digest_headers_are_checked_or_refused(alone: User) -> None:
    link = created(alone)["upload"]

    def old(data: bytes) -> dict[str, str]:
        return {"Digest": f"SHA-256={base64.b64encode(hashlib.sha256(data).digest()).decode()}"}

    problem(alone.http.put(link, content=BYTES, headers=old(b"other")), 400, "digest-mismatch")
    refused = alone.http.put(link, content=BYTES, headers={"Content-MD5": "AAAAAAAAAAAAAAAAAAAAAA=="})
    assert "Repr-Digest" in problem(refused, 400, "bad-header")["detail"]
    hexadecimal = {"Repr-Digest": f"sha-256=:{hashlib.sha256(BYTES).hexdigest()}:"}
    assert "base64" in problem(alone.http.put(link, content=BYTES, headers=hexadecimal), 400, "bad-header")["detail"]
    assert alone.http.put(link, content=BYTES, headers=old(BYTES)).status_code == 202


def test_bytes_sent_to_a_wrong_path_are_told_the_right_one(alone: User) -> None:
    record = created(alone)
    own = record["links"]["self"].partition("/v1")[2]
    assert f"PUT to /v1{own}/content" in problem(alone.http.put(own, content=b"x"), 405)["detail"]
    assert (
        f"Did you mean /v1{own}/content?"
        in problem(alone.http.put(f"{own}/content/a.zip", content=b"x"), 404)["detail"]
    )


def test_encoded_partial_or_empty_bodies_are_refused(alone: User) -> None:
    link = created(alone)["upload"]
    problem(alone.http.put(link, files={"file": b"x"}), 415)
    problem(alone.http.put(link, content=b"x", headers={"Content-Encoding": "gzip"}), 415)
    problem(alone.http.put(link), 400, "no-bytes")
    assert alone.http.put(link, content=BYTES, headers={"Content-Type": "application/x-www-form-urlencoded"}).is_success


def _chunks(size: int, chunk: int = 2**16) -> Iterator[bytes]:
    for _ in range(size // chunk):
        yield b"\0" * chunk


def test_a_too_large_upload_is_refused_before_or_while_it_is_received(narrow: Service) -> None:
    with narrow.user() as user:
        record = created(user)
        problem(user.http.put(record["upload"], content=bytes(100_001)), 413, "too-large")
        problem(user.http.put(record["upload"], content=_chunks(2**18)), 413, "too-large")
        head = f"PUT /v1/teachers/{record['id']}/content HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {user.key}\r\n"
        assert b" 413 " in _raw(narrow, head + "Content-Length: 999999999999\r\nExpect: 100-continue\r\n\r\n")
        assert stored(narrow, f"uploads/{record['id']}") == []
        assert user.http.put(record["upload"], content=bytes(100_000)).status_code == 202


def _raw(service: Service, text: str) -> bytes:
    import socket

    host, port = service.url.removeprefix("http://").split(":")
    with socket.create_connection((host, int(port)), timeout=20) as connection:
        connection.sendall(text.encode())
        return connection.recv(65536)


def test_the_storage_of_a_key_is_limited_by_its_quota(narrow: Service) -> None:
    with narrow.user() as user, narrow.user() as other:
        first, second = created(user), created(user)
        assert user.http.put(first["upload"], content=bytes(90_000)).status_code == 202
        detail = problem(user.http.put(second["upload"], content=bytes(70_000)), 413, "quota-exceeded")["detail"]
        assert "60000" in detail
        problem(user.http.put(second["upload"], content=_chunks(2**17, 2**15)), 413, "quota-exceeded")
        assert other.http.put(created(other)["upload"], content=bytes(90_000)).status_code == 202
        user.http.delete(f"/teachers/{first['id']}")
        assert user.http.put(second["upload"], content=bytes(70_000)).status_code == 202


def test_a_client_that_sends_a_large_body_receives_the_error(narrow: Service) -> None:
    with narrow.user() as user:
        problem(
            user.http.put(created(user)["upload"], content=_chunks(2**25), headers={"Content-Length": str(2**25)}), 413
        )


def test_of_two_concurrent_puts_one_succeeds_and_keeps_its_bytes(user: User) -> None:
    record, gate = created(user), threading.Barrier(2)
    responses: list[httpx.Response] = []

    def send(byte: bytes) -> None:
        def chunks() -> Iterator[bytes]:
            yield byte * 1000
            gate.wait(20)
            yield byte * 1000

        with httpx.Client(trust_env=False, timeout=30, headers=user.http.headers) as http:
            responses.append(http.put(record["upload"], content=chunks()))

    threads = [threading.Thread(target=send, args=(byte,)) for byte in (b"a", b"b")]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(response.status_code for response in responses) == [202, 409]
    [key] = stored(user.service, f"uploads/{record['id']}")
    data = b"".join(user.service.storage.get(key))
    assert hashlib.sha256(data).hexdigest() == user.http.get(f"/teachers/{record['id']}").json()["sha256"]


def test_an_interrupted_upload_leaves_no_bytes(alone: User) -> None:
    record = created(alone)

    def chunks() -> Iterator[bytes]:
        yield bytes(2**20)
        raise ConnectionError("gone")

    with pytest.raises(ConnectionError):
        alone.http.put(record["upload"], content=chunks(), headers={"Content-Length": str(2**30)})
    time.sleep(0.3)
    assert alone.http.get(f"/teachers/{record['id']}").json()["status"] == "waiting"
    assert stored(alone.service, f"uploads/{record['id']}") == []
    assert alone.http.put(record["upload"], content=BYTES).status_code == 202


def test_inputs_of_an_unfinished_job_cannot_be_deleted(user: User) -> None:
    teacher, dataset, weights = user.teacher(), user.dataset(), created(user, "files")["id"]
    resolved = {"student": {"network": "lenet5_half", "initial_weights": weights}}
    job = user.job(teacher_id=teacher, dataset_id=dataset, resolved=resolved)
    for path in (f"/teachers/{teacher}", f"/datasets/{dataset}", f"/files/{weights}"):
        assert job in problem(user.http.delete(path), 409, "conflict")["detail"]
    user.change(job, status="failed")
    for path in (f"/teachers/{teacher}", f"/datasets/{dataset}", f"/files/{weights}"):
        assert user.http.delete(path).status_code == 204
        problem(user.http.delete(path), 404)


def test_pages_have_no_gaps_or_repeats(user: User) -> None:
    made = [created(user, name=f"n{at}", labels={"parity": str(at % 2)})["id"] for at in range(7)]
    seen: list[str] = []
    cursor: str | None = None
    while True:
        page = user.http.get("/teachers", params={"limit": 3} | ({"cursor": cursor} if cursor else {})).json()
        seen += [one["id"] for one in page["data"]]
        created(user)  # a new entry does not change the following pages
        cursor = page["next_cursor"]
        if cursor is None:
            break
    assert seen == made[::-1]


def test_lists_are_filtered_by_status_and_label(user: User) -> None:
    first = created(user, labels={"team": "vision", "odd name/é": "a:b"})["id"]
    created(user, labels={"team": "speech"})
    ready = user.teacher(labels={"team": "vision"})

    def ids(**params: Any) -> list[str]:
        return [one["id"] for one in user.http.get("/teachers", params=params).json()["data"]]

    assert ids(label="team:vision") == [ready, first]
    assert ids(label=["team:vision", "odd name/é:a:b"]) == [first]
    assert ids(label="team:vision", status="ready") == [ready]
    assert ids(label="none:x") == []


def test_an_upload_is_streamed_in_constant_memory(embedded: Service) -> None:
    with embedded.user() as user:
        size, before = 200 * 2**20, embedded.peak_bytes
        record = created(user)
        response = user.http.put(record["upload"], content=_chunks(size, 2**20), timeout=120)
        assert response.json()["size"] == size
        assert embedded.peak_bytes - before < size // 2
        assert user.http.delete(f"/teachers/{record['id']}").status_code == 204


def test_a_teacher_may_leave_its_network_and_classes_to_be_found(user: User) -> None:
    body = {"input": TEACHER["input"]}
    teacher = user.http.post("/teachers", json=body).json()
    assert (teacher["network"], teacher["classes"], teacher["name"]) == ("auto", 0, "auto")
    named = user.http.post("/teachers", json=body | {"class_names": ["a", "b"]}).json()
    assert named["classes"] == 2
    job = {"teacher": teacher["id"], "student": {"network": "lenet5_half"}}
    submitted = user.http.post("/jobs", json=job)
    assert submitted.status_code == 202, submitted.text
    assert submitted.json()["resolved"]["student"]["classes"] is None  # known once it is inspected


def test_a_teacher_is_described_layer_by_layer(user: User) -> None:
    layers = [{"conv": 4}, {"pool": "global"}, {"flatten": True}, {"linear": None}]
    teacher = created(user, network={"layers": layers})
    assert (teacher["network"], teacher["options"]) == ("layers", {"layers": layers})
    wrong = user.http.post("/teachers", json=TEACHER | {"network": {"layers": [{"conv": 4, "speed": 1}]}})
    assert pointers(wrong) == ["/options/layers/0/speed"]
    vague = user.http.post("/teachers", json={"input": TEACHER["input"], "options": {"width": 4}})
    assert pointers(vague) == ["/options"]


def test_a_teacher_may_name_a_dataset_by_which_it_is_recognised(user: User) -> None:
    dataset = created(user, "datasets")["id"]
    teacher = user.http.post("/teachers", json={"network": None, "dataset": dataset}).json()
    assert (teacher["network"], teacher["input"], teacher["dataset"]) == ("auto", {}, dataset)
    sent = user.http.put(teacher["upload"], content=BYTES).json()
    assert f"waits for {dataset}, which is waiting" in sent["reason"]
    job = {"teacher": teacher["id"], "student": {"network": "lenet5_half"}}
    assert (
        user.http.post("/jobs", json=job).json()["resolved"]["student"]["input"] is None
    )  # known once it is inspected


def test_a_dataset_that_cannot_be_used_is_refused_with_the_teacher(service: Service, user: User) -> None:
    def refused(dataset: str) -> str:
        response = user.http.post("/teachers", json={"dataset": dataset})
        assert pointers(response) == ["/dataset"]
        return str(response.json()["errors"][0]["message"])

    with service.user() as other:
        assert "does not exist" in refused(created(other, "datasets")["id"])
    rejected, deleted = created(user, "datasets")["id"], created(user, "datasets")["id"]
    set_status(user, "datasets", rejected, "rejected")
    user.http.delete(f"/datasets/{deleted}")
    assert f"rejected {rejected}" in refused(rejected)
    assert "does not exist" in refused(deleted)
    assert pointers(user.http.post("/teachers", json={})) == ["/input"]
    assert pointers(user.http.post("/teachers", json={"network": "program", "dataset": rejected})) == ["/dataset"]
