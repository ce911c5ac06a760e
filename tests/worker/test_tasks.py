"""Reacting to wake-up messages, and putting back work that a worker cannot do."""

import time
from collections.abc import Callable
from typing import Any

import pytest
from sqlalchemy import text

from models.database import engine, now
from models.records import Attempt, Dataset, Inspection, Job, Worker
from models.settings import settings
from tests.worker.attempt.test_job import eventually
from tests.worker.scenes import SCRIPTED, change, get, in_thread, make_job, make_upload, rows
from worker.attempt import inspection
from worker.attempt import job as attempt_job
from worker.ledger import presence, time_of_day
from worker.tasks import DueWork, Slots
from worker.upkeep import sweep, upkeep


def break_with(monkeypatch: pytest.MonkeyPatch, error: Exception) -> None:
    def broken(*arguments: Any) -> None:
        raise error

    monkeypatch.setattr(attempt_job, "lay_out", broken)
    monkeypatch.setattr(inspection, "write_job_file", broken)


def due_work(kind: Any) -> DueWork:
    return DueWork(kind, presence.register(kind), SCRIPTED)


def test_a_worker_with_a_full_disk_puts_its_job_back_without_counting_it_and_claims_no_others(
    both: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    ids = [make_job() for _ in range(3)]
    break_with(monkeypatch, OSError(28, "No space left on device"))
    worker = due_work("distill")
    worker.run()
    jobs = [get(Job, job_id) for job_id in ids]
    assert [(job.status, job.attempt, job.losses) for job in jobs] == [
        ("queued", 1, 0),
        ("queued", 0, 0),
        ("queued", 0, 0),
    ]
    assert "No space left on device" in jobs[0].reason and jobs[0].lease_owner is None
    assert jobs[0].due_at - jobs[1].due_at > settings().lease_seconds / 2
    (attempt,) = rows(Attempt, job_id=ids[0])
    assert attempt.outcome == "lost" and attempt.error["code"] == "worker_failed"
    assert get(Worker, worker.worker_id).busy_with is None


def test_a_job_that_breaks_every_worker_fails_as_poison_with_the_error(
    embedded: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    job_id = make_job()
    break_with(monkeypatch, RuntimeError("nobody\0 thought of this"))
    for _ in range(settings().most_lost_attempts):
        change(Job, job_id, due_at=now())
        due_work("distill").run()
    job = get(Job, job_id)
    assert (job.status, job.error["code"]) == ("failed", "poison")
    assert "RuntimeError: nobody thought of this" in job.error["message"]


def test_an_inspection_is_put_back_too(embedded: None, monkeypatch: pytest.MonkeyPatch) -> None:
    subject = make_upload(b"images")
    break_with(monkeypatch, OSError(28, "No space left on device"))
    due_work("inspect").run()
    (one,) = rows(Inspection, subject_id=subject)
    assert (one.status, one.attempt, one.losses, one.lease_owner) == ("queued", 1, 0, None)
    assert get(Dataset, subject).status == "inspecting"


def test_a_check_runs_while_uploads_hang_in_all_slots_that_take_them(embedded: None) -> None:
    slots = Slots.of("inspect", {}, SCRIPTED)
    hanging = [make_upload(b"images", hang=True) for _ in range(2)]
    threads = [in_thread(slots.run) for _ in hanging]
    eventually(lambda: [row.status for row in rows(Inspection)] == ["running"] * 2)
    job_id, waiting = make_job(ready=False), make_upload(b"images")
    upkeep.settle_stuck_jobs()
    slots.run()
    assert get(Job, job_id).ready and get(Dataset, waiting).status == "inspecting"
    slots.draining.set()
    for thread in threads:
        thread.join(20)
    assert [get(Dataset, subject).status for subject in hanging] == ["inspecting"] * 2
    assert {row.lease_owner for row in rows(Inspection)} == {None}


def test_a_crashed_engines_log_may_contain_nul_characters(both: None) -> None:
    job_id = make_job(stderr="before\0after", kill_at=0)
    due_work("distill").run()
    (attempt,) = rows(Attempt, job_id=job_id, number=1)
    assert attempt.error["code"] == "engine_crashed" and attempt.error["hint"] == "beforeafter"


def test_wake_up_messages_are_sent_for_a_worker_whose_idle_report_was_lost(
    both: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    held, waiting = make_job(), make_job()
    worker = presence.register("distill")
    sent = []
    monkeypatch.setattr(upkeep, "wake_up", lambda kind, count: sent.append((kind, count)))
    change(Job, held, status="running", attempt=1, lease_owner=worker, lease_expires_at=now() + 60)
    change(Worker, worker, busy_with=held)
    upkeep.wake_idle_workers()
    assert sent == []  # it is really busy
    change(Job, held, status="succeeded", lease_owner=None, lease_expires_at=None)
    time.sleep(settings().sweep_seconds)
    upkeep.wake_idle_workers()
    assert sent == [("distill", 1)] and get(Job, waiting).woken_at is not None


def test_a_worker_of_another_schema_claims_and_sweeps_nothing(both: None) -> None:
    job_id, subject = make_job(), make_upload(b"images")
    with engine().begin() as connection:
        (ours,) = connection.execute(text("SELECT version_num FROM alembic_version")).scalars()
        connection.execute(text("UPDATE alembic_version SET version_num = 'newer'"))
    for kind in ("distill", "inspect"):
        due_work(kind).run()
    change(Job, job_id, cancel_requested_at=now())
    sweep.sweep([presence.register("distill")])
    assert (get(Job, job_id).status, get(Job, job_id).attempt) == ("queued", 0)
    assert get(Dataset, subject).status == "inspecting"
    with engine().begin() as connection:
        connection.execute(text("UPDATE alembic_version SET version_num = :ours"), {"ours": ours})
    sweep.sweep([presence.register("distill")])
    assert get(Job, job_id).status == "cancelled"


@pytest.mark.parametrize(
    ("storage", "off", "attempts"), [("s3://bucket/x", 3600, 0), ("s3://bucket/x", -3600, 0), ("", 3600, 1)]
)
def test_a_worker_whose_clock_is_off_claims_nothing_from_a_bucket(
    embedded: None,
    configure: Callable[..., Any],
    monkeypatch: pytest.MonkeyPatch,
    storage: str,
    off: int,
    attempts: int,
) -> None:
    job_id, real = make_job(), time.time
    configure(storage_url=storage)
    monkeypatch.setattr(time_of_day.time, "time", lambda: real() + off)
    assert abs(time_of_day.seconds_off() - off) < 60
    worker = presence.register("distill")
    monkeypatch.setattr(DueWork, "_attempt", lambda self, claimed: False)  # what an attempt does is not the question
    DueWork("distill", worker).run()
    assert get(Job, job_id).attempt == attempts
    presence.seen([worker], 0)
    assert abs(get(Worker, worker).about["clock_seconds_off"] - off) < 60
