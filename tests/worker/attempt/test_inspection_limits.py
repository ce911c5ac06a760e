"""What an inspection may use: time, memory, disk and its key's storage. Beyond that it is a verdict, and not tried again."""

import signal
from collections.abc import Callable
from typing import Any

import pytest
from sqlalchemy import func, select

from models.database import reading
from models.records import Dataset, Inspection, Job, Key
from models.scheduling.key_usage import used_bytes
from models.settings import settings
from models.storage.opening import storage
from tests.worker.attempt.test_inspection import inspect_next
from tests.worker.scenes import change, get, make_job, make_key, make_upload, rows, run_next
from worker.attempt import engine_limits, inspection_engine
from worker.attempt.engine_limits import FLOOR_BYTES, InspectionLimits
from worker.ledger import sent_bytes
from worker.ledger.claims import claim
from worker.tasks import DueWork
from worker.upkeep import upkeep

FULL = {"fault": "service", "code": "disk_error", "message": "the disk is full"}


def used(key_id: str) -> int:
    with reading() as session:
        return used_bytes(session, key_id)


def blobs() -> list[str]:
    return sorted(entry.key for entry in storage().list())


def test_an_inspection_that_takes_too_long_is_rejected_and_not_tried_again(
    embedded: None, configure: Callable[..., Any]
) -> None:
    configure(inspection_seconds=0.5)
    subject = make_upload(b"images", hang=True, deaf=True)
    inspect_next()
    dataset = get(Dataset, subject)
    assert (dataset.status, dataset.problem["code"], dataset.problem["fault"]) == (
        "rejected",
        "inspection_time",
        "user",
    )
    assert blobs() == [] and claim("inspect", "w") is None


def test_an_engine_killed_by_the_kernel_for_its_memory_is_rejected_and_not_tried_again(
    embedded: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    counts = iter((3, 4))
    monkeypatch.setattr(inspection_engine, "kills_for_memory", lambda: next(counts))
    subject = make_upload(b"images", kill=signal.SIGKILL)
    inspect_next()
    assert get(Dataset, subject).problem["code"] == "inspection_memory"
    assert blobs() == [] and claim("inspect", "w") is None


def test_an_engine_that_aborts_because_an_allocation_failed_is_rejected(embedded: None) -> None:
    said = "terminate called after throwing an instance of 'std::bad_alloc'"
    subject = make_upload(b"images", kill=signal.SIGABRT, stderr=said)
    inspect_next()
    assert get(Dataset, subject).problem["code"] == "inspection_memory"


def test_an_engine_killed_by_somebody_else_is_tried_again(embedded: None) -> None:
    subject = make_upload(b"images", kill=signal.SIGKILL)
    inspect_next()
    (one,) = rows(Inspection, subject_id=subject)
    assert (one.status, one.losses, get(Dataset, subject).status) == ("queued", 1, "inspecting")


def test_a_full_disk_in_an_engine_postpones_and_counts_as_nothing(embedded: None) -> None:
    subject, job_id = make_upload(b"images", error=FULL), make_job(error=FULL)
    inspect_next()
    (one,) = rows(Inspection, subject_id=subject)
    assert (one.status, one.losses, get(Dataset, subject).status) == ("queued", 0, "inspecting")
    run_next()
    job = get(Job, job_id)
    assert (job.status, job.losses, job.reason) == ("queued", 0, "the disk is full")
    for row in (one, job):
        assert row.due_at - row.created_at > settings().lease_seconds / 2


def test_a_worker_without_free_space_claims_nothing(embedded: None, configure: Callable[..., Any]) -> None:
    from worker.ledger import presence

    configure(free_bytes=10**18)
    subject, job_id = make_upload(b"images"), make_job()
    for kind in ("inspect", "distill"):
        DueWork(kind, presence.register(kind)).run()
    assert rows(Inspection, subject_id=subject)[0].attempt == 0 and get(Job, job_id).attempt == 0


def test_a_canonical_form_beyond_the_quota_is_rejected_in_the_accepting_transaction(both: None) -> None:
    key = make_key()
    change(Key, key, limits={"storage_bytes": 25})
    first, second = (make_upload(b"images", key_id=key, times_larger=3) for _ in range(2))
    assert used(key) == 12
    inspect_next()
    assert (get(Dataset, first).status, used(key)) == ("ready", 18 + 6)
    inspect_next()
    dataset = get(Dataset, second)
    assert (dataset.status, dataset.problem["code"]) == ("rejected", "quota_exceeded")
    assert (
        "stored as 18 bytes" in dataset.problem["message"]
        or "store the upload as 18 bytes" in dataset.problem["message"]
    )
    assert blobs() == [get(Dataset, first).blob_key] and used(key) == 18
    assert rows(Inspection, subject_id=second)[0].status == "failed"


def test_the_engine_is_told_how_much_it_may_write(embedded: None) -> None:
    key = make_key()
    change(Key, key, limits={"storage_bytes": 1000})
    make_upload(b"x" * 400, key_id=key)
    subject = make_upload(b"images", key_id=key)
    from worker.ledger.inspections import InspectionLedger

    room = InspectionLedger(rows(Inspection, subject_id=subject)[0]).room()
    assert room == 1000 - 400
    limits = InspectionLimits.of_upload("dataset", 6, room)
    parameters = settings().network_parameters
    assert limits.of_file() == {
        "parameters": parameters, "canonical_bytes": 600, "unpacked_bytes": 2400, "inflated_bytes": 16 * 2**30
    }  # fmt: skip
    large = InspectionLimits.of_upload("dataset", 10 * 2**30, 100 * 2**30)
    assert large.of_file()["inflated_bytes"] == 40 * 2**30


def test_limits_grow_with_the_upload_up_to_a_share_of_the_machine(
    configure: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    gib = 2**30
    configure(inspection_bytes=gib, inspection_seconds=300, engine_threads=2)
    monkeypatch.setattr(engine_limits, "memory_bytes", lambda: 16 * gib)
    tiny, large = (InspectionLimits.of_upload("teacher", size, 100 * gib) for size in (1000, gib))
    assert tiny.canonical_bytes == FLOOR_BYTES + 16_000 and large.canonical_bytes == FLOOR_BYTES + 16 * gib
    assert tiny.memory_bytes == gib + 3 * (1000 + tiny.canonical_bytes) and large.memory_bytes == 8 * gib
    assert round(tiny.seconds) == 300 and round(large.seconds) == 300 + 1074
    assert tiny.of_engine().cpu_seconds == 601
    recognised = InspectionLimits.of_upload("teacher", 1000, 100 * gib, recognises=True)
    assert recognised.of_engine().cpu_seconds == 2 * (300 + 180) + 1
    assert round(recognised.seconds) == 300 + 10 * 180  # a loaded machine gives a tenth of its time


@pytest.mark.parametrize("status", ["rejected", "ready"])
def test_bytes_that_a_crashed_worker_has_left_count_until_a_sweep_deletes_them(both: None, status: str) -> None:
    """A worker was killed after the commit that ended the inspection, and before it deleted the bytes as sent."""
    key = make_key()
    subject = make_upload(b"images", key_id=key)
    change(Dataset, subject, status=status, blob_size=4)
    assert used(key) == 6 + (4 if status == "ready" else 0)
    other = make_upload(b"still inspected", key_id=key)
    assert sent_bytes.clear() == 1
    assert blobs() == [get(Dataset, other).upload_key] and get(Dataset, subject).upload_key is None
    assert used(key) == len(b"still inspected") + (4 if status == "ready" else 0)


def test_an_upload_whose_worker_is_always_lost_leaves_no_bytes(both: None) -> None:
    subject = make_upload(b"images")
    for _ in range(settings().most_lost_attempts):
        change(Inspection, rows(Inspection, subject_id=subject)[0].id, status="running", lease_expires_at=0.0)
        upkeep.take_back_inspections()
    sent_bytes.clear()
    assert get(Dataset, subject).problem["code"] == "poison" and blobs() == []


def test_checks_wait_for_no_upload_and_one_keys_uploads_for_no_others(both: None) -> None:
    """The slots of a worker: with both upload slots busy a check still runs, and a key has at most one of them at first."""
    greedy, modest = make_key(), make_key()
    mine = [make_upload(b"images", key_id=greedy) for _ in range(3)]
    job_id = make_job(ready=False, key_id=greedy)
    upkeep.settle_stuck_jobs()

    def next_of(takes: Any) -> str | None:
        from worker.ledger import presence

        taken = claim("inspect", presence.register("inspect", takes=takes), takes)
        return taken.record.subject_id if taken else None

    assert next_of("uploads first") == mine[0]
    assert next_of("uploads of idle keys") == job_id  # the key's uploads wait, its check does not
    assert next_of("uploads of idle keys") is None
    other = make_upload(b"images", key_id=modest)
    check = make_job(ready=False, key_id=greedy)
    upkeep.settle_stuck_jobs()
    assert next_of("uploads of idle keys") == other
    assert next_of("checks") == check
    assert next_of("checks") is None
    assert next_of("uploads first") == mine[1]
    with reading() as session:
        assert session.scalar(select(func.count()).where(Inspection.status == "running")) == 5
