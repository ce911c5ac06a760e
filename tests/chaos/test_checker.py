"""Each rule of the checker reports a planted violation, and nothing in an undamaged world."""

import hashlib
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest
from fastapi import FastAPI
from safetensors.numpy import save
from sqlalchemy import delete, insert, update
from starlette.testclient import TestClient

from api.access.auth import ensure_first_key
from api.main import create_app
from models.database import engine, transaction
from models.records import (
    Artifact,
    Attempt,
    Checkpoint,
    Event,
    Inspection,
    Job,
    Key,
    Metric,
    Teacher,
    Worker,
)
from models.settings import settings
from models.storage.opening import storage
from tests.chaos.checker import STUDENT, Wanted, World, broken

BYTES = {STUDENT: save({"weight": np.ones(3, np.float32)}), "report.json": b"{}"}
SHA256 = {name: hashlib.sha256(data).hexdigest() for name, data in BYTES.items()}
DONE, CANCELLED = "job_done", "job_cancelled"
ENDS = {"created_at": 100.0, "finished_at": 160.0}
INPUT = {"channels": 1, "height": 16, "width": 16, "mean": [0.5], "std": [0.25]}


@pytest.fixture(scope="module")
def app() -> FastAPI:
    return create_app()


@pytest.fixture
def world(migrated_sqlite: str, app: FastAPI) -> Iterator[World]:
    """An API with a succeeded job, which had lost an attempt, and a cancelled one."""
    ensure_first_key()
    with transaction() as session:
        (owner,) = session.query(Key.id).one()
        upload = {"key_id": owner, "name": "digits", "network": "lenet5", "classes": 4, "input": INPUT}
        session.add(Teacher(id="tch_1", status="ready", blob_key="blobs/tch_1.safetensors", **upload))
        session.flush()
        _job(session, owner, DONE, "0", "succeeded", ["lost", "succeeded"])
        _job(session, owner, CANCELLED, "1", "cancelled", ["cancelled"])
        session.add(Worker(id="wrk_1", kind="distill", host="here", process=1))
        for step in (1, 2):
            session.add(Metric(job_id=DONE, name="loss", step=step, value=0.5, attempt=step))
        for name, data in BYTES.items():
            _artifact(session, DONE, name, data)
    storage().put("blobs/tch_1.safetensors", b"weights")
    key = settings().key_file.read_text().strip()
    http = TestClient(app, "http://testserver/v1/", headers={"Authorization": f"Bearer {key}"})
    wanted = [Wanted(0, "kd", frozenset({DONE})), Wanted(1, "nst", frozenset({CANCELLED}), True)]
    yield World(http, engine(), storage(), wanted, {"kd": SHA256[STUDENT], "nst": "0" * 64}, 120.0)
    http.close()


def _job(session: Any, owner: str, id: str, order: str, status: str, outcomes: list[str]) -> None:
    path = ["queued", *["running", "queued"] * (len(outcomes) - 1), "running", status]
    spec = {"student": {"network": "lenet5_half"}, "teacher": "tch_1"}
    session.add(
        Job(
            id=id, key_id=owner, name="half", labels={"order": order}, status=status, ready=True, spec=spec,
            resolved=spec, teacher_id="tch_1", event_seq=len(path), attempt=len(outcomes), **ENDS,
        )
    )  # fmt: skip
    session.flush()
    for seq, reached in enumerate(path, 1):
        session.add(Event(job_id=id, seq=seq, attempt=1, type="status", message=reached, data={"status": reached}))
    for number, outcome in enumerate(outcomes, 1):
        session.add(Attempt(job_id=id, number=number, worker_id="wrk_1", outcome=outcome, ended_at=150.0))


def _artifact(session: Any, job: str, name: str, data: bytes) -> None:
    key, sha256 = f"jobs/{job}/2/{name}", hashlib.sha256(data).hexdigest()
    storage().put(key, data)
    described = {"content_type": "application/octet-stream", "size": len(data), "sha256": sha256}
    session.add(Artifact(id=f"art_{job}_{name}", job_id=job, attempt=2, name=name, key=key, **described))


def _run(statement: Any) -> Callable[[], None]:
    def plant() -> None:
        with transaction() as session:
            session.execute(statement)

    return plant


def _change(job: str, **values: Any) -> Callable[[], None]:
    return _run(update(Job).where(Job.id == job).values(**values))


def _event(seq: int, **values: Any) -> Callable[[], None]:
    return _run(update(Event).where(Event.job_id == DONE, Event.seq == seq).values(**values))


def _attempt(number: int, **values: Any) -> Callable[[], None]:
    return _run(update(Attempt).where(Attempt.job_id == DONE, Attempt.number == number).values(**values))


def _put(key: str, data: bytes) -> Callable[[], None]:
    return lambda: storage().put(key, data) and None


def _another_bytes() -> None:
    with transaction() as session:
        session.execute(delete(Artifact).where(Artifact.name == STUDENT))
        _artifact(session, DONE, STUDENT, save({"weight": np.zeros(3, np.float32)}))


def _not_safetensors() -> None:
    with transaction() as session:
        session.execute(delete(Artifact).where(Artifact.name == STUDENT))
        _artifact(session, DONE, STUDENT, b"not a student")


def _artifact_of_the_cancelled() -> None:
    with transaction() as session:
        _artifact(session, CANCELLED, STUDENT, BYTES[STUDENT])


def _second_job_of_an_order() -> None:
    with transaction() as session:
        (owner,) = session.query(Key.id).one()
        _job(session, owner, "job_twin", "0", "cancelled", ["cancelled"])


PLANTS: list[tuple[str, str, Callable[[], None]]] = [
    ("no_job_is_lost", "a running job", _change(DONE, status="running")),
    ("no_job_is_lost", "a deleted job", _change(DONE, deleted_at=1.0)),
    ("jobs_end_in_time", "a late end", _change(DONE, finished_at=300.0)),
    ("no_job_is_duplicated", "two jobs of one order", _second_job_of_an_order),
    ("event_histories_are_legal", "a gap", _run(delete(Event).where(Event.job_id == DONE, Event.seq == 3))),
    ("event_histories_are_legal", "an end before the end", _event(3, data={"status": "succeeded"})),
    ("event_histories_are_legal", "another end", _event(5, data={"status": "failed"})),
    ("event_histories_are_legal", "an attempt without a claim", _event(3, data={"status": "running"})),
    ("attempts_are_consistent", "two successes", _attempt(1, outcome="succeeded")),
    ("attempts_are_consistent", "an open attempt", _attempt(1, outcome=None)),
    ("attempts_are_consistent", "a missing attempt", _run(delete(Attempt).where(Attempt.number == 1))),
    ("attempts_are_consistent", "no success", _attempt(2, outcome="lost")),
    ("ends_have_a_cause", "a failure", _change(DONE, status="failed", error={"code": "poison", "message": "x"})),
    ("ends_have_a_cause", "a cancel without a request", _change(DONE, status="cancelled")),
    ("artifacts_are_complete", "a missing artifact", _run(delete(Artifact).where(Artifact.name == "report.json"))),
    ("artifacts_are_complete", "a missing blob", lambda: storage().delete(f"jobs/{DONE}/2/{STUDENT}")),
    ("artifacts_are_complete", "other bytes", _put(f"jobs/{DONE}/2/{STUDENT}", b"x" * len(BYTES[STUDENT]))),
    ("artifacts_are_complete", "no safetensors", _not_safetensors),
    ("artifacts_are_complete", "an artifact of a cancelled job", _artifact_of_the_cancelled),
    ("artifacts_are_complete", "of another attempt", _run(update(Artifact).values(attempt=1))),
    ("metrics_are_unique", "no metrics", _run(delete(Metric))),
    ("students_are_bit_equal", "another student", _another_bytes),
    ("no_lease_is_left", "a lease", _change(DONE, lease_owner="wrk_1", lease_expires_at=1.0)),
    ("no_lease_is_left", "a busy worker", _run(update(Worker).values(busy_with=DONE))),
    ("no_lease_is_left", "an upload that waits", _run(update(Teacher).values(status="inspecting"))),
    ("no_lease_is_left", "an inspection that was lost",
     _run(insert(Inspection).values(id="ins_1", kind="job", subject_id=DONE, status="queued"))),
    ("no_blob_is_orphaned", "a blob without a row", _put(f"jobs/{DONE}/1/{STUDENT}", b"zombie")),
    ("no_blob_is_orphaned", "a row without a blob", lambda: storage().delete("blobs/tch_1.safetensors")),
    ("no_blob_is_orphaned", "a checkpoint",
     _run(insert(Checkpoint).values(id="chk_1", job_id=DONE, attempt=2, step=1, manifest={}))),
]  # fmt: skip


def test_an_undamaged_world_breaks_no_rule(world: World) -> None:
    assert broken(world) == {}


@pytest.mark.parametrize(("rule", "plant"), [(rule, plant) for rule, _, plant in PLANTS], ids=[p[1] for p in PLANTS])
def test_a_planted_violation_breaks_its_rule(world: World, rule: str, plant: Callable[[], None]) -> None:
    plant()
    assert rule in broken(world)


def test_a_post_answered_with_two_jobs_is_reported(world: World) -> None:
    world.wanted = [Wanted(0, "kd", frozenset({DONE, CANCELLED}))]
    assert "no_job_is_duplicated" in broken(world)


def test_a_job_in_no_answer_is_reported(world: World) -> None:
    world.wanted = world.wanted[:1]
    assert "no_job_is_duplicated" in broken(world)


def test_metrics_shown_twice_are_reported(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    pages = world.pages
    monkeypatch.setattr(world, "pages", lambda path: list(pages(path)) * (2 if path.endswith("metrics") else 1))
    assert list(broken(world)) == ["metrics_are_unique"]
