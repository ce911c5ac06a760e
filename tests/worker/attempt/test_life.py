"""Failures during an attempt, with a scripted engine and a storage that can be made unavailable."""

import re
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from models.database import now
from models.records import Artifact, Attempt, Checkpoint, Job
from models.settings import settings
from models.storage.opening import storage
from tests.worker.attempt.test_job import chain, eventually, run_next_of
from tests.worker.scenes import SCRIPTED, artifact, change, claimed, events, get, in_thread, make_job, rows, run_next
from worker.ledger import presence
from worker.ledger.attempts import AttemptLedger
from worker.ledger.changes import Taken
from worker.ledger.claims import renew
from worker.ledger.failures import FAILURES
from worker.tasks import DueWork
from worker.upkeep import upkeep

ROOT = Path(__file__).parents[3]


@contextmanager
def refused() -> Iterator[None]:
    """Make the storage unavailable: replace its folder by a file."""
    folder = settings().data / "blobs"
    folder.mkdir(parents=True, exist_ok=True)
    moved = folder.with_name("blobs.moved")
    folder.rename(moved)
    folder.touch()
    try:
        yield
    finally:
        folder.unlink()
        moved.rename(folder)


def resumes(job_id: str) -> list[int | None]:
    return [event.data["resumed_from"] for event in events(job_id, "log") if "resumed_from" in (event.data or {})]


def outcomes(job_id: str) -> list[str | None]:
    return [row.outcome for row in sorted(rows(Attempt, job_id=job_id), key=lambda row: row.number)]


def until_final(*ids: str) -> None:
    """Run due work until these jobs have ended."""
    work = DueWork("distill", presence.register("distill"), SCRIPTED)

    def final() -> bool:
        work.run()
        return all(get(Job, job_id).finished_at for job_id in ids)

    eventually(final, 60.0)


def test_a_poison_job_fails_after_three_attempts_and_other_jobs_run(embedded: None) -> None:
    poison = make_job(kill_at=0, priority=5)
    others = [make_job(steps=2) for _ in range(2)]
    until_final(poison, *others)
    job = get(Job, poison)
    assert (job.status, job.error["code"], job.attempt) == ("failed", "poison", 3)
    assert [get(Job, other).status for other in others] == ["succeeded"] * 2


def test_ten_kills_with_progress_do_not_fail_a_job(embedded: None) -> None:
    job_id = make_job(steps=33, checkpoint_every=3, await_stored=True, kill_after=3, kill_attempts=list(range(1, 11)))
    until_final(job_id)
    job = get(Job, job_id)
    assert (job.status, job.attempt, job.losses) == ("succeeded", 11, 0)
    assert resumes(job_id) == [None, *range(3, 33, 3)]
    assert artifact(job_id) == chain(33)


def test_a_stalled_engine_is_killed_and_counts_as_a_loss(embedded: None, configure: Callable[..., Any]) -> None:
    configure(stall_seconds=0.7)
    job_id = make_job(hang=True, deaf=True, stderr="before the silence")
    job = run_next_of(job_id)
    assert (job.status, job.losses) == ("queued", 1)
    (attempt,) = rows(Attempt, job_id=job_id)
    assert attempt.error["code"] == "stalled" and attempt.error["hint"] == "before the silence"


@pytest.mark.parametrize("when", ["download", "checkpoint", "finish"])
def test_operations_are_retried_while_the_storage_is_unavailable(embedded: None, when: str) -> None:
    first = "download" if when == "download" else None
    job_id = make_job(
        steps=40, pause=0.02, checkpoint_every=5, kill_at=33, kill_attempts=[1] if first else [], export_pause=0.5
    )
    if first:
        run_next_of(job_id)  # creates a checkpoint to download
        change(Job, job_id, due_at=0.0)
    before = get(Job, job_id).attempt

    def reached() -> bool:
        if first:
            return True
        return get(Job, job_id).phase == "exporting" if when == "finish" else rows(Checkpoint, job_id=job_id) != []

    def step() -> int:
        return (get(Job, job_id).progress or {}).get("step", 0)

    if first:
        with refused():
            thread = in_thread(run_next)
            time.sleep(1.0)
    else:
        thread = in_thread(run_next)
        eventually(reached, 10.0)
        with refused():
            at = step()
            time.sleep(2.0 if when == "finish" else 0.1)
            if when == "checkpoint":
                eventually(lambda: step() > at + 5)  # the training continues
    thread.join(20)
    assert get(Job, job_id).status == "succeeded" and get(Job, job_id).attempt == before + 1
    assert artifact(job_id) == chain(40)


def test_if_the_storage_stays_unavailable_the_job_is_queued_without_a_loss(
    embedded: None, configure: Callable[..., Any]
) -> None:
    configure(storage_patience_seconds=0.5)
    job_id = make_job(steps=3, export_pause=0.5)
    thread = in_thread(run_next)
    eventually(lambda: get(Job, job_id).phase == "exporting", 10.0)
    with refused():
        thread.join(20)
        job = get(Job, job_id)
        assert (job.status, job.losses) == ("queued", 0) and "could not be stored" in job.reason
    assert rows(Artifact, job_id=job_id) == [] and outcomes(job_id) == ["lost"]
    assert rows(Attempt, job_id=job_id)[0].error["code"] == "storage_away"


@pytest.mark.parametrize("request_", ["cancel", "drain"])
def test_a_job_can_be_cancelled_and_drained_while_it_waits_for_its_inputs(embedded: None, request_: str) -> None:
    job_id, draining = (
        make_job(steps=20, checkpoint_every=5, await_stored=True, kill_at=12, kill_attempts=[1]),
        threading.Event(),
    )
    run_next_of(job_id)
    with refused():
        thread = in_thread(lambda: run_next(draining))
        eventually(lambda: get(Job, job_id).attempt == 2)
        asked = time.monotonic()
        if request_ == "cancel":
            change(Job, job_id, cancel_requested_at=now())
        else:
            draining.set()
        thread.join(10)
        assert time.monotonic() - asked < 5.0
    assert get(Job, job_id).status == ("cancelled" if request_ == "cancel" else "queued")
    assert outcomes(job_id)[1] == ("cancelled" if request_ == "cancel" else "drained")
    assert get(Job, job_id).losses == 1
    assert not any(settings().work_folder.iterdir())


def test_a_cancel_is_carried_out_while_the_attempt_waits_for_the_storage(
    embedded: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    go_on = threading.Event()
    put = type(storage()).put

    def slow(self: Any, key: str, *arguments: Any, **more: Any) -> Any:
        if key.endswith("student.safetensors"):
            go_on.wait(30)
        return put(self, key, *arguments, **more)

    monkeypatch.setattr("models.storage.blobs.Storage.put", slow)
    job_id = make_job(steps=2)
    thread = in_thread(run_next)
    eventually(lambda: get(Job, job_id).phase == "exporting", 10.0)
    asked = time.monotonic()
    change(Job, job_id, cancel_requested_at=now())
    eventually(lambda: get(Job, job_id).status == "cancelled")
    assert time.monotonic() - asked < 5.0
    go_on.set()
    thread.join(10)
    assert outcomes(job_id) == ["cancelled"] and rows(Artifact, job_id=job_id) == []
    assert not [entry for entry in storage().list(f"jobs/{job_id}") if "student" in entry.key]


def test_an_accepted_cancel_has_priority_over_a_success(both: None) -> None:
    job_id = make_job()
    ledger = AttemptLedger(job_id, claimed().attempt)
    change(Job, job_id, cancel_requested_at=now())
    assert ledger.succeed({}, [], None) is False
    assert get(Job, job_id).status == "running"
    ledger.cancel(None)
    assert get(Job, job_id).status == "cancelled" and outcomes(job_id) == ["cancelled"]


def test_a_sweep_cancels_a_job_whose_worker_does_not(both: None) -> None:
    job_id = make_job()
    zombie = claimed()
    change(Job, job_id, cancel_requested_at=now())
    upkeep.cancel_overdue()
    assert get(Job, job_id).status == "running"  # the worker's grace period is not over
    change(Job, job_id, cancel_requested_at=now() - 60)
    upkeep.cancel_overdue()
    assert get(Job, job_id).status == "cancelled" and outcomes(job_id) == ["cancelled"]
    with pytest.raises(Taken):
        renew(zombie)


def test_the_time_of_all_attempts_counts_and_waiting_does_not(both: None) -> None:
    job_id = make_job()
    first = claimed()
    time.sleep(0.3)
    renew(first)
    held = rows(Attempt, job_id=job_id)[0].seconds
    assert 0.3 <= held < 5
    change(Job, job_id, lease_expires_at=0.0)
    time.sleep(0.3)
    upkeep.take_back_jobs()
    assert rows(Attempt, job_id=job_id)[0].seconds == held  # what happens after the last heartbeat is not counted
    change(Job, job_id, due_at=0.0)
    second = AttemptLedger(job_id, claimed().attempt)
    assert second.seconds_used() == held
    second.drain(None)
    change(Job, job_id, due_at=0.0)
    third = AttemptLedger(job_id, claimed().attempt)
    assert third.seconds_used() == pytest.approx(sum(row.seconds for row in rows(Attempt, job_id=job_id)[:2]))


def test_the_time_of_earlier_attempts_is_in_the_job_file_and_counts_towards_the_limit(
    embedded: None, configure: Callable[..., Any]
) -> None:
    configure(job_minutes=2)
    job_id = make_job(steps=1000, pause=0.02, kill_at=5, kill_attempts=[1])
    run_next_of(job_id)
    with_seconds(job_id, 1, 119.0)
    job = run_next_of(job_id)
    assert (job.status, job.error["code"], job.error["fault"]) == ("failed", "time_limit", "user")
    assert "2 minutes" in job.error["message"] and "time_limit_minutes" in job.error["hint"]
    used = [float(event.message.split()[3]) for event in events(job_id, "log") if "earlier attempts" in event.message]
    assert used[0] < 60 and 119.0 <= used[1] < 125
    assert rows(Artifact, job_id=job_id) == []


def with_seconds(job_id: str, number: int, seconds: float) -> None:
    from sqlalchemy import update

    from models.database import transaction

    with transaction() as session:
        mine = Attempt.job_id == job_id, Attempt.number == number
        session.execute(update(Attempt).where(*mine).values(seconds=seconds))


def test_the_log_of_an_attempt_with_a_lost_worker_is_available(embedded: None) -> None:
    job_id = make_job(hang=True, deaf=True, stderr="last words")
    thread = in_thread(run_next)
    eventually(lambda: rows(Attempt, job_id=job_id) != [] and rows(Attempt, job_id=job_id)[0].log_key is not None, 10.0)
    change(Job, job_id, lease_expires_at=0.0)
    upkeep.take_back_jobs()
    thread.join(10)
    (attempt,) = rows(Attempt, job_id=job_id)
    assert attempt.outcome == "lost" and attempt.error["code"] == "worker_lost"
    assert b"".join(storage().get(attempt.log_key)) == b"last words\n"


def test_if_all_checkpoints_are_damaged_the_job_starts_again_with_an_event_and_can_be_resumed_later(
    embedded: None,
) -> None:
    job_id = make_job(steps=20, checkpoint_every=5, await_stored=True, kill_at=12, kill_attempts=[1, 2])
    run_next_of(job_id)
    newest, before = sorted(rows(Checkpoint, job_id=job_id), key=lambda row: -row.step)
    shared = newest.manifest["parts"]["frozen"]
    assert shared == before.manifest["parts"]["frozen"]
    storage().put(f"jobs/{job_id}/parts/{shared['sha256']}", bytes(shared["size"]))  # the same size, other content
    change(Job, job_id, due_at=0.0)
    run_next_of(job_id)
    assert resumes(job_id) == [None, None]
    assert "no checkpoint can be read: the job starts again from the beginning" in [
        event.message for event in events(job_id)
    ]
    change(Job, job_id, due_at=0.0)
    assert run_next_of(job_id).status == "succeeded"
    assert resumes(job_id) == [None, None, 10]
    assert artifact(job_id) == chain(20)


def test_after_a_missing_part_the_previous_checkpoint_is_used(embedded: None) -> None:
    job_id = make_job(steps=20, checkpoint_every=5, await_stored=True, kill_at=12, kill_attempts=[1])
    run_next_of(job_id)
    newest = max(rows(Checkpoint, job_id=job_id), key=lambda row: row.step)
    storage().delete(f"jobs/{job_id}/parts/{newest.manifest['parts']['run']['sha256']}")
    assert run_next_of(job_id).status == "succeeded" and resumes(job_id) == [None, 5]


def test_a_checkpoint_that_the_engine_cannot_read_is_dropped_without_a_loss(embedded: None) -> None:
    error = {
        "fault": "service",
        "code": "checkpoint_unreadable",
        "message": "of another version",
        "hint": "",
        "errors": [],
    }
    job_id = make_job(
        steps=12, checkpoint_every=5, await_stored=True, kill_at=8, kill_attempts=[1], error=error, error_attempts=[2]
    )
    run_next_of(job_id)
    job = run_next_of(job_id)
    assert (job.status, job.losses, job.reason) == ("queued", 1, "of another version")
    assert rows(Checkpoint, job_id=job_id) == []
    assert run_next_of(job_id).status == "succeeded" and resumes(job_id) == [None, None]


def test_every_error_code_of_the_worker_has_an_entry() -> None:
    engine = ROOT / "worker" / "distillation"
    text = "".join(path.read_text() for path in (ROOT / "worker").rglob("*.py") if engine not in path.parents)
    given = set(re.findall(r'(?<!log\.)(?:\berror|_refusal)\(\s*"([a-z_]+)"', text))
    assert given == set(FAILURES)
    for failure in FAILURES.values():
        assert failure.meaning.endswith(".") and failure.hint.endswith(".")
