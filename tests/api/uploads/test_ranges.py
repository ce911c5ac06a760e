"""Uploads that are sent in several ranges."""

import base64
import hashlib
from collections.abc import Iterator
from typing import Any

import httpx
import pytest
from sqlalchemy import select

from models.records import Dataset, Inspection
from tests.api.service import Service, User, problem

BYTES = bytes(range(256)) * 40


def created(user: User) -> dict[str, Any]:
    return dict(user.http.post("/datasets", json={"name": "photographs"}).json())


def send(
    user: User, record: dict[str, Any], first: int, last: int, total: int = len(BYTES), **more: Any
) -> httpx.Response:
    """PUT the bytes from `first` to `last`."""
    headers = {"Content-Range": f"bytes {first}-{last}/{total}", **more.pop("headers", {})}
    return user.http.put(record["upload"], content=more.pop("content", BYTES[first : last + 1]), headers=headers)


def row(user: User, record: dict[str, Any]) -> Dataset:
    with user.service.rows() as session:
        return session.get_one(Dataset, record["id"])


def digest(data: bytes) -> str:
    return f"sha-256=:{base64.b64encode(hashlib.sha256(data).digest()).decode()}:"


def test_ranges_are_joined_in_order(user: User) -> None:
    record = created(user)
    assert record["received"] == 0
    first = send(user, record, 0, 3999).json()
    assert (first["status"], first["received"], first["size"]) == ("waiting", 4000, len(BYTES))
    assert first["reason"] == f"waits for the bytes from 4000 to {len(BYTES)}"
    assert send(user, record, 4000, 4999).json()["received"] == 5000
    last = send(user, record, 5000, len(BYTES) - 1, headers={"Repr-Digest": digest(BYTES)})
    assert last.status_code == 202 and last.json()["status"] == "inspecting"
    parts = row(user, record).upload_parts
    assert parts is not None
    assert b"".join(b"".join(user.service.storage.get(part["key"])) for part in parts) == BYTES
    assert last.json()["sha256"] == hashlib.sha256(BYTES).hexdigest()
    with user.service.rows() as session:
        assert len(session.scalars(select(Inspection).where(Inspection.subject_id == record["id"])).all()) == 1
    problem(send(user, record, 0, 9), 409, "conflict")
    assert user.http.delete(f"/datasets/{record['id']}").status_code == 204
    assert list(user.service.storage.list(f"uploads/{record['id']}")) == []


def test_a_broken_upload_continues_where_it_broke_off(alone: User) -> None:
    record = created(alone)
    send(alone, record, 0, 3999)

    def breaks() -> Iterator[bytes]:
        yield BYTES[4000:4500]
        raise httpx.WriteError("the line is cut")

    with pytest.raises(httpx.WriteError):
        send(alone, record, 4000, len(BYTES) - 1, content=breaks(), headers={"Content-Length": str(len(BYTES) - 4000)})
    known = alone.http.get(f"/datasets/{record['id']}").json()
    assert (known["status"], known["received"]) == ("waiting", 4000)
    again = send(alone, record, 0, 3999)  # the response was lost, say
    assert again.json()["received"] == 4000
    assert len(row(alone, record).upload_parts or []) == 1
    assert send(alone, record, 4000, len(BYTES) - 1).json()["status"] == "inspecting"


def test_only_the_next_range_is_accepted(alone: User) -> None:
    record = created(alone)
    for first, last in ((4000, 4999), (1, 10)):
        problem(send(alone, record, first, last), 409, "conflict")
    send(alone, record, 0, 3999)
    refused = problem(send(alone, record, 5000, 5999), 409, "conflict")
    assert "next byte" in refused["detail"] and "4000" in refused["detail"]
    problem(send(alone, record, 4000, 4999, total=len(BYTES) + 1), 409, "conflict")
    assert send(alone, record, 0, 99, total=200).json()["received"] == 100  # begins again
    assert len(list(alone.service.storage.list(f"uploads/{record['id']}"))) == 1
    assert alone.http.put(record["upload"], content=BYTES).json()["status"] == "inspecting"


@pytest.mark.parametrize(
    "header",
    ["bytes */10", "bytes 0-9", "bytes 5-4/10", "bytes 0-10/10", "octets 0-9/10", "bytes 0-8/10", "bytes -1-9/10"],
)
def test_malformed_ranges_are_refused(alone: User, header: str) -> None:
    record = created(alone)
    response = alone.http.put(record["upload"], content=bytes(10), headers={"Content-Range": header})
    problem(response, 400, "bad-header")
    assert list(alone.service.storage.list(f"uploads/{record['id']}")) == []


def test_the_digest_of_a_range_is_checked(alone: User) -> None:
    record = created(alone)
    wrong = {"Content-Digest": digest(b"other")}
    problem(send(alone, record, 0, 3999, headers=wrong), 400, "digest-mismatch")
    assert list(alone.service.storage.list(f"uploads/{record['id']}")) == []
    assert send(alone, record, 0, 3999, headers={"Content-Digest": digest(BYTES[:4000])}).json()["received"] == 4000


def test_the_whole_is_limited_at_the_first_range(narrow: Service) -> None:
    with narrow.user() as user:
        problem(send(user, created(user), 0, 99, total=100_001), 413, "too-large")
        record = created(user)
        assert send(user, record, 0, 99, total=100_000).status_code == 200
        assert send(user, record, 100, 199, total=100_000).json()["received"] == 200


def test_a_reference_that_the_operator_does_not_allow_is_refused(alone: User) -> None:
    for source in ("file:///etc", "nonsense"):
        response = alone.http.post("/datasets", json={"name": "x", "source": source})
        assert response.status_code == 422 and response.json()["errors"][0]["pointer"] == "/source"
    assert created(alone)["source"] is None
