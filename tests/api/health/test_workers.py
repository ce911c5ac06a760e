"""Waiting uploads and jobs say which worker is missing."""

import os
from collections.abc import Iterator

import pytest
from sqlalchemy import delete

from models.database import now
from models.records import Worker
from models.records.columns import new_id
from tests.api.service import TEACHER, User


@pytest.fixture
def workerless(user: User) -> Iterator[User]:
    with user.service.rows() as session:
        session.execute(delete(Worker))
    yield user
    with user.service.rows() as session:
        session.execute(delete(Worker))


def add_worker(user: User, kind: str) -> None:
    with user.service.rows() as session:
        session.add(Worker(id=new_id("wrk"), kind=kind, host="here", process=os.getpid(), seen_at=now()))


def test_an_upload_says_what_it_waits_for(workerless: User) -> None:
    made = workerless.http.post("/teachers", json=TEACHER).json()
    assert "PUT them" in made["reason"]
    sent = workerless.http.put(made["upload"], content=b"weights")
    address = f"/teachers/{made['id']}"
    assert "no inspect worker is running: start one" in sent.json()["reason"]
    alone = workerless.http.get(address)
    assert alone.json()["reason"] == sent.json()["reason"]
    assert workerless.http.get("/teachers").json()["data"][0]["reason"] == sent.json()["reason"]
    add_worker(workerless, "inspect")
    attended = workerless.http.get(address, headers={"If-None-Match": alone.headers["etag"]})
    assert attended.status_code == 200 and attended.json()["reason"] == "waits for its inspection to end"
    assert workerless.http.get(f"/teachers/{workerless.teacher()}").json()["reason"] is None


def test_a_job_says_which_worker_is_missing(workerless: User) -> None:
    waiting, ready = workerless.job(reason="its spec is being checked"), workerless.job(ready=True)
    add_worker(workerless, "distill")
    alone = workerless.http.get(f"/jobs/{waiting}")
    assert alone.json()["reason"].startswith("its spec is being checked; no inspect worker is running")
    assert workerless.http.get(f"/jobs/{ready}").json()["reason"] is None
    add_worker(workerless, "inspect")
    attended = workerless.http.get(f"/jobs/{waiting}", headers={"If-None-Match": alone.headers["etag"]})
    assert attended.status_code == 200 and attended.json()["reason"] == "its spec is being checked"
