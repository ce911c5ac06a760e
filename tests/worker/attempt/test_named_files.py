"""Jobs whose methods name uploaded files: when they continue, when they fail, and the files in the job folder."""

import json
from pathlib import Path
from typing import Any

import pytest

from models.database import transaction
from models.records import File, Inspection, Job, Teacher
from models.records.columns import new_id
from models.storage.opening import storage
from tests.worker.scenes import change, claimed, get, make_job, make_key, make_upload, rows
from worker.attempt.attempt_storage import AttemptStorage
from worker.attempt.fetching import InputMissing
from worker.attempt.inputs import lay_out
from worker.attempt.lease import Lease
from worker.engine.folder import Folder
from worker.ledger.attempts import AttemptLedger
from worker.upkeep import upkeep

FINDINGS = {"kind": "statistics", "classes": 10, "rank": 8, "taps": {"fc2:in": 84}}


def make_file(key_id: str, status: str = "ready", kind: str = "statistics", **findings: Any) -> str:
    file = File(id=new_id("fil"), key_id=key_id, name="statistics", kind=kind, status=status, options={})
    if status == "ready":
        stored = storage().put(f"blobs/{file.id}/1.safetensors", b"numbers")
        file.findings, file.blob_key = FINDINGS | findings, f"blobs/{file.id}/1.safetensors"
        file.blob_size, file.blob_sha256 = stored.size, stored.sha256
    with transaction() as session:
        session.add(file)
    return file.id


def make_reader(key_id: str, file: str, ready: bool = False) -> str:
    """A job with the source `metadata`, as the API writes it; the resolved spec has only the needed fields."""
    teacher = make_upload(b"weights", "teacher", key_id, status="ready")
    blob = storage().put(f"blobs/{teacher}/1.safetensors", b"weights")
    change(Teacher, teacher, blob_key=f"blobs/{teacher}/1.safetensors", blob_size=blob.size, blob_sha256=blob.sha256)
    job_id = make_job(ready=True, key_id=key_id, teacher_id=teacher)
    spec = {
        "teacher": teacher, "student": {"network": "lenet5_half"}, "source": {"name": "metadata", "statistics": file},
        "labels": {"script": json.dumps({"steps": 2})},
    }  # fmt: skip
    change(Job, job_id, ready=ready, spec=spec, resolved=spec)
    return job_id


def test_a_job_is_checked_when_its_file_is_ready(both: None) -> None:
    key = make_key()
    file = make_file(key, "inspecting")
    job = make_reader(key, file)
    upkeep.settle_stuck_jobs()
    assert not rows(Inspection, subject_id=job)
    change(File, file, status="ready", findings=FINDINGS)
    upkeep.settle_stuck_jobs()
    assert [row.kind for row in rows(Inspection, subject_id=job)] == ["job"]
    assert get(Job, job).resolved["source"]["statistics"] == file


@pytest.mark.parametrize(
    ("found", "words"),
    [
        ({"status": "rejected"}, "the input cannot be used"),
        ({"kind": "weights"}, "of the kind `statistics`"),
        ({"classes": 7}, "7 classes"),
    ],
)
def test_a_job_fails_with_the_pointer_of_an_unsuitable_file(embedded: None, found: dict[str, Any], words: str) -> None:
    key = make_key()
    job = make_reader(key, make_file(key, **found))
    upkeep.settle_stuck_jobs()
    failed = get(Job, job)
    assert (failed.status, failed.phase) == ("failed", "validating")
    (error,) = failed.error["errors"]
    assert error["pointer"] == "/source/statistics" and words in error["message"]


def laid_out(job_id: str) -> tuple[dict[str, Any], bytes]:
    claim = claimed()
    assert claim.id == job_id and isinstance(claim.record, Job)
    with Lease(claim) as lease, Folder(claim.id, claim.attempt) as folder:
        lay_out(
            claim.record, folder.path, AttemptLedger(claim.id, claim.attempt), AttemptStorage(lease.check_held), lease
        )
        content = json.loads((folder.path / "job.json").read_text())
        (path,) = content["files"].values()
        return content, Path(folder.path, path).read_bytes()


def test_the_job_file_has_the_files_by_id(embedded: None) -> None:
    key = make_key()
    file = make_file(key)
    job = make_reader(key, file, ready=True)
    content, numbers = laid_out(job)
    assert list(content["files"]) == [file] and numbers == b"numbers"


def test_a_missing_file_ends_the_attempt_with_its_pointer(embedded: None) -> None:
    key = make_key()
    file = make_file(key)
    job = make_reader(key, file, ready=True)
    storage().delete(f"blobs/{file}/1.safetensors")
    with pytest.raises(InputMissing) as missing:
        laid_out(job)
    assert missing.value.pointer == "/source/statistics" and file in missing.value.message
