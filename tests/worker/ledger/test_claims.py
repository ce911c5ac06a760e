"""Claims, leases and fencing, on both databases."""

import threading
import time
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from sqlalchemy import func, select

from models.database import UNAVAILABLE, engine, now, reading, transaction
from models.records import Artifact, Attempt, Event, Inspection, Job, Metric, Worker
from models.settings import settings
from models.storage.opening import storage
from tests.worker.conftest import QUICK
from tests.worker.scenes import change, claimed, events, get, make_job, make_key, make_upload, rows
from worker.ledger import presence
from worker.ledger.attempts import AttemptLedger, EventBatch, File
from worker.ledger.changes import Note, Taken
from worker.ledger.claims import claim, look, renew
from worker.ledger.inspections import Canonical, InspectionLedger
from worker.upkeep import upkeep

FILE = File("student.safetensors", "jobs/x/1/student.safetensors", "application/octet-stream", 3, "a" * 64)
MANIFEST = {"step": 5, "parts": {"run": {"sha256": "b" * 64, "size": 1}}}


def test_concurrent_threads_claim_every_due_job_once(both: None) -> None:
    key = make_key()
    ids = {make_job(key_id=key) for _ in range(24)}
    workers = [presence.register("distill") for _ in range(8)]
    barrier = threading.Barrier(len(workers))

    def race(worker: str) -> list[str]:
        barrier.wait()
        taken = []
        while (one := claim("distill", worker)) is not None:
            taken.append(one.id)
        return taken

    with ThreadPoolExecutor(len(workers)) as pool:
        counts = Counter(job_id for taken in pool.map(race, workers) for job_id in taken)
    assert counts == dict.fromkeys(ids, 1)
    with reading() as session:
        assert session.scalar(select(func.count()).select_from(Attempt)) == len(ids)
        assert {tuple(row) for row in session.execute(select(Job.attempt, Job.status))} == {(1, "running")}


def test_inspections_are_claimed_once_too(both: None) -> None:
    key = make_key()
    subjects = [make_upload(b"images", key_id=key) for _ in range(6)]
    with ThreadPoolExecutor(6) as pool:
        taken = list(pool.map(lambda _: claim("inspect", "w"), range(12)))
    found = [one.record.subject_id for one in taken if one is not None and isinstance(one.record, Inspection)]
    assert sorted(found) == sorted(subjects)


def test_the_highest_priority_and_oldest_due_job_is_claimed_first(both: None) -> None:
    later = make_job()
    old, urgent = make_job(), make_job(priority=5)
    make_job(ready=False)
    change(Job, later, due_at=now() + 3600)
    change(Job, make_job(priority=9), cancel_requested_at=now())
    change(Job, make_job(priority=9), deleted_at=now())
    assert [claimed().id, claimed().id] == [urgent, old]
    assert claim("distill", "w") is None
    assert get(Job, old).lease_expires_at > 0


def test_a_claim_records_its_worker(both: None) -> None:
    job_id = make_job()
    taken = claimed()
    (worker,) = rows(Worker, id=taken.worker_id)
    assert worker.busy_with == job_id
    job = get(Job, job_id)
    assert (job.status, job.attempt, job.lease_owner, job.version) == ("running", 1, worker.id, 2)
    assert [(event.type, event.attempt) for event in events(job_id)] == [("status", 1)]
    assert 0 < job.lease_expires_at - job.started_at <= 8.1
    presence.idle(worker.id)
    assert get(Worker, worker.id).busy_with is None


def zombie_and_heir(job_id: str) -> tuple[AttemptLedger, AttemptLedger]:
    zombie = claimed()
    change(Job, job_id, lease_expires_at=0.0)
    assert upkeep.take_back_jobs() == 1
    heir = claimed()
    assert (zombie.attempt, heir.attempt) == (1, 2)
    for held in (renew, look):
        with pytest.raises(Taken):
            held(zombie)
        assert held(heir) is False
    return AttemptLedger(job_id, 1), AttemptLedger(job_id, 2)


def test_writes_of_an_old_attempt_change_nothing(both: None) -> None:
    job_id = make_job()
    zombie, heir = zombie_and_heir(job_id)
    heir.write(EventBatch(metrics={("loss", 1): 2.0}))
    before = snapshot(job_id)
    writes = [
        lambda: zombie.write(EventBatch(notes=[Note("log", "I live")], metrics={("loss", 1): 1.0})),
        lambda: zombie.write(EventBatch(progress={"step": 1})),
        lambda: zombie.write(EventBatch(phase="exporting")),
        lambda: zombie.checkpoint(MANIFEST),
        lambda: zombie.preview(FILE, 1),
        lambda: zombie.succeed({}, [FILE], None),
        lambda: zombie.fail({"message": "no"}, None),
        lambda: zombie.cancel(None),
        lambda: zombie.drain(None),
        lambda: zombie.postpone({"message": "no"}, 0.0, None),
        lambda: zombie.lose({"message": "no"}, None),
    ]
    for write in writes:
        with pytest.raises(Taken):
            write()
        assert snapshot(job_id) == before
    heir.succeed({}, [FILE], None)
    with pytest.raises(Taken):
        heir.succeed({}, [FILE], None)
    (artifact,) = rows(Artifact, job_id=job_id)
    assert artifact.attempt == 2
    assert [row.outcome for row in sorted(rows(Attempt, job_id=job_id), key=lambda row: row.number)] == [
        "lost",
        "succeeded",
    ]
    assert heir.published() and not zombie.published()


def snapshot(job_id: str) -> object:
    with reading() as session:
        job = session.execute(select(Job.__table__).where(Job.id == job_id)).one()
        counts = [session.scalar(select(func.count()).select_from(table)) for table in (Event, Artifact, Metric)]
        return (
            job,
            counts,
            session.execute(select(Metric.__table__)).all(),
            session.execute(select(Attempt.__table__)).all(),
        )


def test_the_newer_attempts_metrics_are_kept(both: None) -> None:
    job_id = make_job()
    first = AttemptLedger(job_id, claimed().attempt)
    first.write(EventBatch(metrics={("loss", 1): 1.0, ("loss", 2): 2.0}))
    first.drain(None)
    second = AttemptLedger(job_id, claimed().attempt)
    second.write(EventBatch(metrics={("loss", 2): None, ("loss", 3): 3.0}))
    second.write(EventBatch(metrics={("loss", 3): 3.5}))
    found = {(row.step, row.value, row.attempt) for row in rows(Metric, job_id=job_id)}
    assert found == {(1, 1.0, 1), (2, None, 2), (3, 3.5, 2)}


def test_only_a_later_step_is_progress(both: None) -> None:
    job_id = make_job()
    ledger = AttemptLedger(job_id, claimed().attempt)
    for step, losses in ((5, 0), (5, 2), (4, 2), (6, 0)):
        change(Job, job_id, losses=2)
        ledger.checkpoint(MANIFEST | {"step": step})
        assert get(Job, job_id).losses == losses


def test_concurrent_sweeps_take_a_job_back_once(both: None) -> None:
    job_id = make_job()
    claimed()
    change(Job, job_id, lease_expires_at=0.0)
    with ThreadPoolExecutor(6) as pool:
        list(pool.map(lambda _: upkeep.take_back_jobs(), range(6)))
    job = get(Job, job_id)
    assert (job.status, job.losses, job.lease_owner) == ("queued", 1, None)
    assert [event.data["status"] for event in events(job_id, "status")] == ["running", "queued"]


def test_a_worker_suspended_in_a_transaction_does_not_block_sweeps(
    configure: Callable[..., Any], migrated_postgres: str
) -> None:
    configure(**QUICK)
    job_id = make_job()
    claimed()
    change(Job, job_id, lease_expires_at=0.0)
    stopped = engine().connect()
    stopped.execute(select(Job.id).where(Job.id == job_id).with_for_update())
    assert upkeep.take_back_jobs() == 0
    deadline = time.monotonic() + 5
    while upkeep.take_back_jobs() == 0:
        assert time.monotonic() < deadline
        time.sleep(0.05)
    assert get(Job, job_id).status == "queued"
    with pytest.raises(UNAVAILABLE):
        stopped.execute(select(1))
    stopped.invalidate()
    stopped.close()


def test_a_lost_job_with_a_requested_cancel_is_cancelled(both: None) -> None:
    job_id = make_job()
    claimed()
    change(Job, job_id, lease_expires_at=0.0, cancel_requested_at=now())
    upkeep.take_back_jobs()
    assert get(Job, job_id).status == "cancelled"


def test_a_job_whose_workers_are_all_lost_is_poison(both: None) -> None:
    job_id = make_job()
    for _ in range(3):
        change(Job, job_id, due_at=0.0)
        claimed()
        change(Job, job_id, lease_expires_at=0.0)
        upkeep.take_back_jobs()
    job = get(Job, job_id)
    assert (job.status, job.error["code"], job.losses) == ("failed", "poison", 3)
    assert claim("distill", "w") is None


def test_a_cancelled_queued_job_never_runs(both: None) -> None:
    job_id = make_job()
    change(Job, job_id, cancel_requested_at=now())
    upkeep.cancel_queued()
    job = get(Job, job_id)
    assert (job.status, job.reason) == ("cancelled", None) and job.finished_at is not None


def test_an_old_attempt_at_an_inspection_cannot_set_the_uploads_status(both: None) -> None:
    subject = make_upload(b"images")
    zombie = InspectionLedger(claimed("inspect").record)
    change(Inspection, zombie.id, lease_expires_at=0.0)
    assert upkeep.take_back_inspections() == 1
    heir = InspectionLedger(claimed("inspect").record)
    for write in (
        lambda: zombie.accept({}, Canonical("k", 1, "s")),
        lambda: zombie.reject({"message": "no"}),
        lambda: zombie.release(0.0),
        lambda: zombie.lose({"message": "no"}),
        zombie.drop,
        lambda: zombie.pass_check({}),
    ):
        with pytest.raises(Taken):
            write()
    assert heir.accept({"a": 1}, Canonical("k", 1, "s")) is True
    from models.records import Dataset

    assert get(Dataset, subject).status == "ready"


def test_checkpoints_of_ended_jobs_and_all_data_of_deleted_jobs_are_removed(both: None) -> None:
    job_id = make_job()
    ledger = AttemptLedger(job_id, claimed().attempt)
    storage().put(f"jobs/{job_id}/parts/{'b' * 64}", b"x")
    storage().put(f"jobs/{job_id}/1/student.safetensors", b"abc")
    ledger.checkpoint(MANIFEST)
    upkeep.clear_checkpoints()
    assert len(list(storage().list(f"jobs/{job_id}"))) == 2
    ledger.succeed({}, [FILE], None)
    change(Job, job_id, finished_at=now() - 3600)
    upkeep.clear_checkpoints()
    assert [entry.key for entry in storage().list(f"jobs/{job_id}")] == [f"jobs/{job_id}/1/student.safetensors"]
    change(Job, job_id, deleted_at=now() - 3600)
    upkeep.clear_deleted_jobs()
    assert list(storage().list(f"jobs/{job_id}")) == [] and rows(Event, job_id=job_id) == []


def test_wake_up_messages_are_sent_for_due_work_up_to_the_number_of_idle_workers(
    both: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    sent: list[tuple[str, int]] = []
    monkeypatch.setattr(upkeep, "wake_up", lambda kind, count: sent.append((kind, count)))
    monkeypatch.setattr(settings(), "sweep_seconds", 600.0)  # no second message for a row, even on a slow machine
    upkeep.wake_idle_workers()
    jobs = [make_job() for _ in range(3)]
    upkeep.wake_idle_workers()
    assert sent == []
    workers = [presence.register("distill") for _ in range(2)]
    upkeep.wake_idle_workers()
    assert sent == [("distill", 2)]
    upkeep.wake_idle_workers()
    assert sent == [("distill", 2), ("distill", 1)]
    upkeep.wake_idle_workers()
    assert len(sent) == 2
    with transaction() as session:
        session.query(Job).filter(Job.id.in_(jobs)).update({"woken_at": 0.0})
    presence.leave(workers[:1])
    upkeep.wake_idle_workers()
    assert sent[2:] == [("distill", 1)]
