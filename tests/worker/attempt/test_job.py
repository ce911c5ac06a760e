"""An attempt from claim to end, with a scripted engine."""

import hashlib
import struct
import threading
import time
from pathlib import Path

import pytest
from sqlalchemy import update

from models.database import now, transaction
from models.records import Artifact, Attempt, Checkpoint, Job, Metric, Preview
from models.settings import settings
from models.storage.opening import storage
from tests.worker.scenes import SCRIPTED, artifact, change, claimed, events, get, in_thread, make_job, rows, run_next
from worker.attempt.job import run_job
from worker.attempt.scalar_events import record, scalar
from worker.upkeep.upkeep import take_back_jobs


def chain(steps: int) -> bytes:
    state = "begin"
    for step in range(steps):
        state = hashlib.sha256(f"{state}{step}".encode()).hexdigest()
    return state.encode()


def eventually(condition, seconds: float = 5.0) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "it did not happen"
        time.sleep(0.02)


def test_a_job_writes_rows_and_artifacts(both: None) -> None:
    job = run_next_of(make_job(steps=10, checkpoint_every=5))
    assert (job.status, job.attempt, job.phase, job.error) == ("succeeded", 1, "exporting", None)
    assert job.lease_owner is None and job.started_at <= job.finished_at
    assert job.progress["step"] == 10
    assert sorted(job.phases, key=lambda name: job.phases[name]["started_at"]) == ["distilling", "exporting"]
    assert all(times["started_at"] <= times["ended_at"] for times in job.phases.values())
    assert artifact(job.id) == chain(10)
    names = {row.name for row in rows(Artifact, job_id=job.id)}
    assert names - {name for name in names if name.startswith("tensorboard/")} == {"student.safetensors", "report.json"}
    losses = {row.step: row.value for row in rows(Metric, job_id=job.id, name="loss")}
    assert losses == {step: 1 / step for step in range(1, 11)}
    assert {row.value for row in rows(Metric, job_id=job.id, name="broken")} == {None}
    (attempt,) = rows(Attempt, job_id=job.id)
    assert attempt.outcome == "succeeded" and attempt.ended_at >= attempt.started_at
    (preview,) = rows(Preview, job_id=job.id)
    assert storage().size(preview.key) == preview.size
    assert [event.data["status"] for event in events(job.id, "status")] == ["running", "succeeded"]
    assert not any(settings().work_folder.iterdir())


def test_an_event_file_has_the_metrics_of_all_attempts(both: None) -> None:
    job_id = make_job(steps=20, checkpoint_every=5, await_stored=True, kill_at=12, kill_attempts=[1])
    run_next()
    change(Job, job_id, due_at=0.0)
    assert run_next_of(job_id).status == "succeeded"
    (row,) = [one for one in rows(Artifact, job_id=job_id) if one.name.startswith("tensorboard/events.out.tfevents.")]
    messages = events_of(artifact(job_id, row.name))
    assert b"brain.Event:2" in messages[0]
    losses = {row.step: row.value for row in rows(Metric, job_id=job_id, name="loss")}
    assert losses.keys() == set(range(1, 21))
    expected = {scalar("loss", step, value, 0.0)[9:] for step, value in losses.items()}  # without the time
    assert expected == {message[9:] for message in messages if b"loss" in message}
    assert not [message for message in messages if b"broken" in message]  # NaN


def events_of(data: bytes) -> list[bytes]:
    """The messages of an event file, whose checksums must be right."""
    found = []
    while data:
        (length,) = struct.unpack("<Q", data[:8])
        message = data[12 : 12 + length]
        assert record(message) == data[: 16 + length]
        found.append(message)
        data = data[16 + length :]
    return found


def test_client_and_worker_write_the_same_scalars() -> None:
    folder = Path(__file__).parents[3]
    ours, theirs = (folder / name / "scalar_events.py" for name in ("worker/attempt", "client/distillery_client"))
    assert ours.read_bytes() == theirs.read_bytes()


def run_next_of(job_id: str, draining: threading.Event | None = None) -> Job:
    job = run_next(draining)
    assert job.id == job_id
    return job


def test_a_job_resumes_after_a_killed_engine_with_the_same_result(both: None) -> None:
    job_id = make_job(steps=12, checkpoint_every=5, await_stored=True, kill_at=8, kill_attempts=[1])
    job = run_next_of(job_id)
    assert (job.status, job.losses) == ("queued", 1)
    assert "signal 9 (SIGKILL), possibly out of memory" in job.reason
    job = run_next_of(job_id)
    assert (job.status, job.attempt, job.losses) == ("succeeded", 2, 0)
    assert artifact(job_id) == chain(12)
    assert [event.data["resumed_from"] for event in events(job_id, "log") if "resumed_from" in (event.data or {})] == [
        None,
        5,
    ]
    by_attempt = {row.step: row.attempt for row in rows(Metric, job_id=job_id, name="loss")}
    assert by_attempt == {step: 1 if step <= 5 else 2 for step in range(1, 13)}


def test_progress_resets_the_losses_and_three_losses_without_progress_are_poison(embedded: None) -> None:
    job_id = make_job(steps=12, checkpoint_every=5, await_stored=True, kill_at=8, stderr="it hurts here")
    statuses = []
    for _ in range(3):
        change(Job, job_id, due_at=0.0)
        statuses.append(run_next_of(job_id).status)
    assert statuses == ["queued", "queued", "failed"]
    job = get(Job, job_id)
    assert job.error["code"] == "poison" and "killed by signal 9" in job.error["message"]
    assert job.error["hint"] == "it hurts here"
    assert [row.outcome for row in rows(Attempt, job_id=job_id)] == ["lost"] * 3
    assert rows(Artifact, job_id=job_id) == []


def test_after_a_damaged_checkpoint_the_previous_one_is_used(embedded: None) -> None:
    job_id = make_job(steps=20, checkpoint_every=5, await_stored=True, kill_at=12, kill_attempts=[1])
    run_next_of(job_id)
    newest = max(rows(Checkpoint, job_id=job_id), key=lambda row: row.step)
    assert newest.step == 10
    storage().put(f"jobs/{job_id}/parts/{newest.manifest['parts']['run']['sha256']}", b"bits have flipped")
    assert run_next_of(job_id).status == "succeeded"
    assert artifact(job_id) == chain(20)
    assert [event.data["resumed_from"] for event in events(job_id, "log") if "resumed_from" in (event.data or {})] == [
        None,
        5,
    ]


def test_the_newest_two_checkpoints_are_kept_and_unused_parts_are_deleted(embedded: None) -> None:
    job_id = make_job(steps=20, pause=0.03, checkpoint_every=4, await_stored=True, kill_at=19)
    run_next_of(job_id)
    kept = rows(Checkpoint, job_id=job_id)
    assert [row.step for row in kept] == [12, 16]
    named = {part["sha256"] for row in kept for part in row.manifest["parts"].values()}
    assert {entry.key.rpartition("/")[2] for entry in storage().list(f"jobs/{job_id}/parts")} == named
    assert len(named) == 3


@pytest.mark.parametrize("deaf", [False, True])
def test_a_cancel_ends_a_running_job_within_the_grace_period(embedded: None, deaf: bool) -> None:
    job_id = make_job(steps=1000, pause=0.05, deaf=deaf)
    thread = in_thread(run_next)
    eventually(lambda: get(Job, job_id).progress is not None)
    asked = time.monotonic()
    change(Job, job_id, cancel_requested_at=now())
    eventually(lambda: get(Job, job_id).status == "cancelled", 3.0)
    assert time.monotonic() - asked < 2.0
    thread.join(5)
    assert [row.outcome for row in rows(Attempt, job_id=job_id)] == ["cancelled"]
    assert rows(Artifact, job_id=job_id) == [] and not list(storage().list(f"jobs/{job_id}/1/student"))


def test_a_drain_writes_a_checkpoint_and_queues_the_job_without_a_loss(
    embedded: None, draining: threading.Event
) -> None:
    job_id = make_job(steps=60, pause=0.02)
    thread = in_thread(lambda: run_next(draining))
    eventually(lambda: get(Job, job_id).progress is not None)
    draining.set()
    thread.join(5)
    job = get(Job, job_id)
    assert (job.status, job.losses, job.reason) == ("queued", 0, "the worker was drained")
    (checkpoint,) = rows(Checkpoint, job_id=job_id)
    assert 0 < checkpoint.step < 60
    assert run_next_of(job_id).status == "succeeded"
    assert artifact(job_id) == chain(60)
    assert [row.outcome for row in rows(Attempt, job_id=job_id)] == ["drained", "succeeded"]


def test_an_engine_that_ignores_a_drain_is_killed_without_a_loss(
    configure, embedded: None, draining: threading.Event
) -> None:
    configure(drain_grace_seconds=0.3)
    job_id = make_job(hang=True, deaf=True)
    thread = in_thread(lambda: run_next(draining))
    eventually(lambda: events(job_id, "log") != [])
    draining.set()
    thread.join(5)
    assert (get(Job, job_id).status, get(Job, job_id).losses) == ("queued", 0)


@pytest.mark.parametrize("fault", ["user", "job"])
def test_an_error_of_user_or_job_fails_the_job(embedded: None, fault: str) -> None:
    problem = {
        "fault": fault,
        "code": "diverged",
        "message": "no",
        "hint": "less",
        "errors": [{"pointer": "/a", "message": "b"}],
    }
    job = run_next_of(make_job(error=problem))
    assert (job.status, job.error) == ("failed", problem)
    assert rows(Attempt, job_id=job.id)[0].outcome == "failed"


def test_an_error_of_the_service_is_retried(embedded: None) -> None:
    job = run_next_of(make_job(error={"fault": "service", "code": "x", "message": "away", "hint": "", "errors": []}))
    assert (job.status, job.losses, job.reason) == ("queued", 1, "away")


def test_an_attempt_that_was_taken_back_stops_its_engine_and_writes_nothing(embedded: None) -> None:
    job_id = make_job(steps=1000, pause=0.02)
    thread = in_thread(run_next)
    eventually(lambda: get(Job, job_id).progress is not None)
    with transaction() as session:
        session.execute(update(Job).where(Job.id == job_id).values(attempt=7, lease_owner="another"))
    thread.join(3)
    assert not thread.is_alive()
    job = get(Job, job_id)
    assert (job.status, job.attempt, job.lease_owner) == ("running", 7, "another")
    assert not any(settings().work_folder.iterdir())


def test_a_worker_that_cannot_renew_its_lease_stops_its_engine_before_the_lease_expires(
    configure, embedded: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    configure(lease_seconds=2.0)
    from sqlalchemy.exc import OperationalError

    def away(*_: object) -> bool:
        raise OperationalError("UPDATE", {}, Exception("the database is away"))

    job_id = make_job(steps=1000, pause=0.02)
    monkeypatch.setattr("worker.attempt.lease.renew", away)
    begun = time.monotonic()
    thread = in_thread(run_next)
    thread.join(5)
    assert 1.0 < time.monotonic() - begun < settings().lease_seconds
    assert get(Job, job_id).status == "running"
    eventually(lambda: take_back_jobs() == 1, settings().lease_seconds + 5)
    assert (get(Job, job_id).status, get(Job, job_id).losses) == ("queued", 1)


def test_the_engine_gets_no_secrets_and_invalid_lines_are_ignored(
    embedded: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DISTILL_STORAGE_SECRET_KEY", "hush")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "hush")
    job = run_next_of(make_job(steps=2, print_environment=True, flood=3 << 20))
    assert job.status == "succeeded"
    (environment,) = [event.message for event in events(job.id, "log") if event.message.startswith("{")]
    assert "hush" not in environment and "DISTILL_" not in environment and "sqlite" not in environment


def test_child_processes_of_the_engine_end_with_it(embedded: None) -> None:
    job_id = make_job(hang=True, deaf=True)
    thread = in_thread(run_next)
    eventually(lambda: events(job_id, "log") != [])
    change(Job, job_id, cancel_requested_at=now())
    thread.join(4)
    assert not thread.is_alive()
    mine = [path for path in Path("/proc").glob("[0-9]*/cwd") if _links_into(path, settings().work_folder)]
    assert mine == []


def _links_into(path: Path, folder: Path) -> bool:
    try:
        return path.readlink().is_relative_to(folder.absolute())
    except OSError:
        return False


def test_a_missing_input_fails_the_job_with_a_message(embedded: None) -> None:
    from tests.worker.scenes import make_upload

    dataset = make_upload(b"images")
    job = run_next_of(make_job(dataset_id=dataset))
    assert job.status == "failed" and job.error["code"] == "input_missing"
    assert job.error["errors"][0]["pointer"] == "/dataset"


def test_the_log_is_stored(embedded: None) -> None:
    job = run_next_of(make_job(steps=1, stderr="a warning of some library"))
    (attempt,) = rows(Attempt, job_id=job.id)
    assert b"".join(storage().get(attempt.log_key)) == b"a warning of some library\n"


def test_a_claim_without_a_running_attempt_is_taken_back(embedded: None) -> None:
    job_id = make_job()
    taken = claimed()
    change(Job, job_id, lease_expires_at=0.0)
    take_back_jobs()
    run_job(taken, threading.Event(), SCRIPTED)
    assert (get(Job, job_id).status, get(Job, job_id).attempt) == ("queued", 1)
