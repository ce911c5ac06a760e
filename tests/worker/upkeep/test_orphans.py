"""Which blobs the scan for orphans removes."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from models.database import transaction
from models.records import Artifact, Attempt, Checkpoint, Dataset, Inspection, Job, Preview
from models.records.columns import new_id
from models.settings import settings
from models.storage.blobs import Entry
from models.storage.opening import storage
from tests.worker.scenes import SCRIPTED, change, claimed, get, make_job, make_upload, rows
from worker.attempt.inspection import run_inspection
from worker.attempt.job import run_job
from worker.upkeep import orphans, upkeep
from worker.upkeep.orphans import Orphans, clear_orphans

FILE = {"content_type": "x/y", "size": 1, "sha256": "a" * 64}


def keys() -> set[str]:
    return {entry.key for entry in storage().list()}


def as_old_as(seconds: float) -> list[Entry]:
    return [Entry(entry.key, entry.size, entry.modified - seconds) for entry in storage().list()]


def age(seconds: float, but: str = "") -> None:
    """Set an older modification time of blobs in a folder."""
    for key in keys() - {but}:
        path = settings().data / "blobs" / key
        os.utime(path, (path.stat().st_mtime - seconds,) * 2)


def put(*names: str) -> set[str]:
    for name in names:
        storage().put(name, b"1")
    return set(names)


def test_only_old_blobs_without_a_row_are_removed(both: None) -> None:
    waiting, gone = make_upload(b"1"), make_upload(b"2")
    change(Dataset, gone, deleted_at=1.0, blob_key=f"blobs/{gone}.safetensors")
    done, running, resumable, deleted = make_job(), make_job(), make_job(), make_job()
    change(Job, done, status="succeeded")
    change(Job, running, status="running")
    change(Job, resumable, status="failed")
    change(Job, deleted, status="failed", deleted_at=1.0)
    kept = put(f"jobs/{done}/1/student", f"jobs/{done}/1/previews/5-a.png", f"jobs/{done}/1/engine.log",
               f"jobs/{running}/1/student", f"jobs/{resumable}/parts/aa", "jobs/readme", "other/file")  # fmt: skip
    kept |= {f"uploads/{waiting}/1"}
    put(f"uploads/{waiting}/2", f"blobs/{gone}.safetensors", f"blobs/{new_id('tch')}.safetensors",
        f"jobs/{done}/2/student", f"jobs/{done}/parts/bb", f"jobs/{deleted}/1/student", f"jobs/{new_id('job')}/1/x")  # fmt: skip
    with transaction() as session:
        session.add(Artifact(id="a", job_id=done, attempt=1, name="student", key=f"jobs/{done}/1/student", **FILE))
        key = f"jobs/{done}/1/previews/5-a.png"
        session.add(Preview(id="p", job_id=done, attempt=1, step=5, name="a.png", key=key, **FILE))
        session.add(Attempt(job_id=done, number=1, worker_id="w", log_key=f"jobs/{done}/1/engine.log"))
        session.add(Checkpoint(id="c", job_id=resumable, attempt=1, step=1, manifest={"step": 1, "parts": {}}))
    before = keys()
    assert clear_orphans(as_old_as(24 * 3600 - 60)) == 0 and keys() == before
    assert clear_orphans(as_old_as(24 * 3600 + 60)) == len(before - kept)
    assert keys() == kept


def test_a_scan_of_storage_proceeds_page_by_page_and_then_pauses(embedded: None, configure, monkeypatch) -> None:
    monkeypatch.setattr(orphans, "PAGE", 2)
    configure(keep_orphans_hours=0.5)
    put(*(f"uploads/{new_id('tch')}/1" for _ in range(5)), "uploads/tch_young/1")
    age(3600, but="uploads/tch_young/1")
    look = Orphans()
    assert sorted(look.clear() for _ in range(4)) == [0, 1, 2, 2]
    assert keys() == {"uploads/tch_young/1"}
    put("uploads/tch_late/1")
    age(3600)
    assert look.clear() == 0 and keys() == {"uploads/tch_young/1", "uploads/tch_late/1"}


KILLED = """
import os, signal, threading
from tests.worker.scenes import SCRIPTED, claimed
from worker.attempt import inspection, job
from worker.ledger.{module} import {ledger}

{ledger}.{method} = lambda *_, **__: os.kill(os.getpid(), signal.SIGKILL)
{run}(claimed({kind!r}), threading.Event(), SCRIPTED)
"""


@pytest.mark.parametrize("kind", ["inspect", pytest.param("distill", marks=pytest.mark.slow)])
def test_blobs_of_a_worker_killed_before_its_commit_are_removed(embedded: None, draining, kind: str) -> None:
    of_jobs = {"module": "attempts", "ledger": "AttemptLedger", "method": "succeed", "run": "job.run_job"}
    of_uploads = {"module": "inspections", "ledger": "InspectionLedger", "method": "accept"}
    how = of_jobs if kind == "distill" else of_uploads | {"run": "inspection.run_inspection"}
    subject = make_job(steps=2) if kind == "distill" else make_upload(b"images")
    code, root = KILLED.format(kind=kind, **how), Path(__file__).parents[3]
    done = subprocess.run([sys.executable, "-W", "ignore", "-c", code], cwd=root, check=False)
    assert done.returncode == -signal.SIGKILL
    left = {key for key in keys() if subject in key and not key.startswith("uploads/")}
    assert left, "it was to be killed with its blobs written"
    change(Job if kind == "distill" else Inspection, work_of(subject), lease_expires_at=0.0)
    assert (upkeep.take_back_jobs() or upkeep.take_back_inspections()) == 1
    taken = claimed(kind)
    (run_job if kind == "distill" else run_inspection)(taken, draining, SCRIPTED)
    assert taken.attempt == 2 and get(Job if kind == "distill" else Dataset, subject).status in ("succeeded", "ready")
    mine = keys() - left
    assert left < keys() and mine, "each attempt has places of its own"
    assert clear_orphans(as_old_as(25 * 3600)) == len(left) and keys() == mine


def work_of(subject: str) -> str:
    """The id of the leased row."""
    return subject if subject.startswith("job") else str(rows(Inspection, subject_id=subject)[0].id)


def test_parts_that_a_row_names_are_kept(both: None) -> None:
    sharded, open_, inspected = (make_upload(b"1", status="ready") for _ in range(3))
    part, other = "a" * 64, "b" * 64
    first = f"blobs/{sharded}/1.safetensors"
    change(Dataset, sharded, blob_key=first, blob_parts=[{"sha256": part, "size": 1}], upload_key=None)
    ranges = [{"key": f"uploads/{{}}/{number}", "size": 1, "sha256": part} for number in range(2)]
    for upload, status in ((open_, "waiting"), (inspected, "ready")):
        named = [each | {"key": each["key"].format(upload)} for each in ranges]
        change(Dataset, upload, status=status, upload_key=None, upload_parts=named)
        put(*(each["key"] for each in named))
    kept = put(first, f"blobs/{sharded}/{part}") | {f"uploads/{open_}/0", f"uploads/{open_}/1"}
    put(f"blobs/{sharded}/{other}", f"uploads/{open_}/5")
    clear_orphans(as_old_as(10 * 24 * 3600))
    assert keys() == kept
