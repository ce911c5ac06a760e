"""Jobs whose teacher is the student of another job: when they continue, when they fail, and how long artifacts are
kept."""

import json
from collections.abc import Callable
from typing import Any

from models.database import now, reading
from models.records import Artifact, Inspection, Job, Teacher
from models.status import JobStatus
from models.storage.opening import storage
from tests.worker.scenes import INPUT, change, claimed, get, make_job, make_key, make_upload, rows, run_next
from worker.attempt.attempt_storage import AttemptStorage
from worker.attempt.inputs import AttemptInputs, lay_out
from worker.attempt.lease import Lease
from worker.engine.folder import Folder
from worker.ledger.attempts import AttemptLedger
from worker.upkeep import retention, upkeep

CARD = {
    "network": "lenet5_half", "options": {}, "classes": 10, "class_names": [], "input": INPUT, "added_by": [],
    "findings": {"differentiable": True, "batch_norm": False},
}  # fmt: skip
WHOLE = {"student": {"network": "lenet5_half"}, "exports": ["safetensors"]}


def teaching(key_id: str, **script: Any) -> str:
    """A job whose student becomes a teacher."""
    return make_job(steps=4, student=CARD, key_id=key_id, **script)


def taught(key_id: str, teacher: Any, ready: bool = False) -> str:
    """A job with such a teacher, as the API writes it; the resolved spec has only the needed fields."""
    spec = WHOLE | {"teacher": teacher, "labels": {"script": json.dumps({"steps": 2})}}
    members = {"members": teacher} if isinstance(teacher, list) else teacher
    job_id = make_job(ready=True, key_id=key_id)
    change(Job, job_id, ready=ready, spec=spec, resolved=spec | {"teacher": members})
    return job_id


def test_a_job_is_checked_as_soon_as_its_teachers_job_has_succeeded(both: None) -> None:
    key = make_key()
    teacher = teaching(key)
    waiting = taught(key, teacher)
    upkeep.settle_stuck_jobs()
    assert not rows(Inspection, subject_id=waiting)
    assert run_next().id == teacher
    assert get(Job, teacher).student == CARD
    assert [row.kind for row in rows(Inspection, subject_id=waiting)] == ["job"]
    resolved = get(Job, waiting).resolved
    assert (resolved["student"]["classes"], resolved["student"]["input"]) == (10, INPUT)


def test_a_job_fails_with_a_pointer_if_its_teachers_job_fails(both: None) -> None:
    key = make_key()
    upload = make_upload(b"weights", "teacher", key, status="ready")
    teacher = teaching(key, error={"fault": "user", "code": "diverged", "message": "no"})
    waiting = taught(key, [upload, teacher])
    assert run_next().status == JobStatus.FAILED
    upkeep.settle_stuck_jobs()
    failed = get(Job, waiting)
    assert failed.status == JobStatus.FAILED and failed.phase == "validating"
    assert failed.error["errors"] == [
        {"pointer": "/teacher/1", "message": f"{teacher} has failed: it has no student that could be a teacher"}
    ]


def test_the_job_folder_has_the_weights_of_all_teachers(both: None) -> None:
    key = make_key()
    upload = make_upload(b"weights", "teacher", key, status="ready")
    blob = storage().put("blobs/one.safetensors", b"of the upload")
    change(Teacher, upload, blob_key="blobs/one.safetensors", blob_sha256=blob.sha256)
    teacher = teaching(key)
    run_next()
    job = get(Job, taught(key, [upload, teacher], ready=True))
    claim = claimed()
    assert claim.id == job.id
    with Lease(claim) as lease, Folder(claim.id, claim.attempt) as folder:
        lay_out(
            claim.record, folder.path, AttemptLedger(claim.id, claim.attempt), AttemptStorage(lease.check_held), lease
        )
        content = json.loads((folder.path / "job.json").read_text())
        assert content["teacher"] is None
        assert [(each["id"], each["network"]) for each in content["teachers"]] == [
            (upload, "lenet5"), (teacher, "lenet5_half"),
        ]  # fmt: skip
        weights = [(folder.path / each["weights"]).read_bytes() for each in content["teachers"]]
    (row,) = rows(Artifact, job_id=teacher, name="student.safetensors")
    assert weights == [b"of the upload", b"".join(storage().get(row.key))]
    with reading() as session:
        assert [each.id for each in AttemptInputs.of(session, job).teachers] == [upload, teacher]


def test_artifacts_are_kept_while_an_unfinished_job_needs_them(both: None, configure: Callable[..., Any]) -> None:
    configure(keep_artifacts_days=1)
    key = make_key()
    teacher = teaching(key)
    run_next()
    waiting = taught(key, teacher)
    (row,) = rows(Artifact, job_id=teacher, name="student.safetensors")
    for artifact in rows(Artifact, job_id=teacher):
        change(Artifact, artifact.id, created_at=now() - 1000 * 24 * 3600)
    retention.clear()
    assert rows(Artifact, job_id=teacher) and b"".join(storage().get(row.key))
    change(Job, waiting, status=JobStatus.CANCELLED)
    retention.clear()
    assert not rows(Artifact, job_id=teacher)
