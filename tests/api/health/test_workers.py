"""What waits says so where nobody is there to do the work."""

import os
from collections.abc import Iterator

import pytest
from sqlalchemy import delete

from models.database import now
from models.records import Worker
from models.records.columns import new_id
from tests.api.service import TEACHER, User


@pytest.fixture
def nobody(user: User) -> Iterator[User]:
    with user.service.rows() as session:
        session.execute(delete(Worker))
    yield user
    with user.service.rows() as session:
        session.execute(delete(Worker))


def arrive(user: User, kind: str) -> None:
    with user.service.rows() as session:
        session.add(Worker(id=new_id("wrk"), kind=kind, host="here", process=os.getpid(), seen_at=now()))


def test_an_upload_says_what_it_waits_for(nobody: User) -> None:
    made = nobody.http.post("/teachers", json=TEACHER).json()
    assert "PUT them" in made["reason"]
    sent = nobody.http.put(made["upload"], content=b"weights")
    address = f"/teachers/{made['id']}"
    assert "no inspect worker is up: start one" in sent.json()["reason"]
    alone = nobody.http.get(address)
    assert alone.json()["reason"] == sent.json()["reason"]
    assert nobody.http.get("/teachers").json()["data"][0]["reason"] == sent.json()["reason"]
    arrive(nobody, "inspect")
    attended = nobody.http.get(address, headers={"If-None-Match": alone.headers["etag"]})
    assert attended.status_code == 200 and attended.json()["reason"] == "waits for the end of its inspection"
    assert nobody.http.get(f"/teachers/{nobody.teacher()}").json()["reason"] is None


def test_a_job_says_which_worker_is_missing(nobody: User) -> None:
    waiting, ready = nobody.job(reason="its spec is being checked"), nobody.job(ready=True)
    arrive(nobody, "distill")
    alone = nobody.http.get(f"/jobs/{waiting}")
    assert alone.json()["reason"].startswith("its spec is being checked; no inspect worker is up")
    assert nobody.http.get(f"/jobs/{ready}").json()["reason"] is None
    arrive(nobody, "inspect")
    attended = nobody.http.get(f"/jobs/{waiting}", headers={"If-None-Match": alone.headers["etag"]})
    assert attended.status_code == 200 and attended.json()["reason"] == "its spec is being checked"
