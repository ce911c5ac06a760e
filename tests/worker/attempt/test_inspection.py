"""Inspections of uploads, checks of specs, and the jobs that wait for them."""

import hashlib
import json
import threading
from typing import Any

import pytest
from sqlalchemy import delete

from models.database import now, transaction
from models.records import Dataset, Inspection, Job, Teacher
from models.records.columns import new_id
from models.storage import keys
from models.storage.blobs import Entry
from models.storage.opening import storage
from tests.worker.scenes import FINDINGS, SCRIPTED, change, claimed, events, get, make_job, make_key, make_upload, rows
from worker.attempt.inspection import run_inspection
from worker.ledger import waiting
from worker.ledger.claims import claim
from worker.ledger.inspections import Canonical, InspectionLedger
from worker.upkeep import upkeep
from worker.upkeep.orphans import clear_orphans


def inspect_next(draining: threading.Event | None = None) -> None:
    run_inspection(claimed("inspect"), draining or threading.Event(), SCRIPTED)


def test_an_inspected_upload_is_ready_and_its_original_is_deleted(both: None) -> None:
    subject = make_upload(b"images")
    inspect_next()
    dataset = get(Dataset, subject)
    assert (dataset.status, dataset.findings, dataset.problem) == ("ready", {"size": 6}, None)
    assert b"".join(storage().get(dataset.blob_key)) == b"IMAGES"
    assert storage().size(dataset.blob_key) == dataset.blob_size
    assert dataset.upload_key is None and list(storage().list("uploads")) == []
    (inspection,) = rows(Inspection, subject_id=subject)
    assert (inspection.status, inspection.lease_owner) == ("done", None)
    assert claim("inspect", "w") is None


def test_the_sheet_of_images_is_kept_beside_the_canonical_form(both: None) -> None:
    subject = make_upload(b'{"samples": {"rows": null}}')
    inspect_next()
    dataset = get(Dataset, subject)
    sheet = keys.samples(dataset.blob_key)
    assert sheet != dataset.blob_key and b"".join(storage().get(sheet)) == b"a sheet"
    old = [Entry(entry.key, entry.size, 0.0) for entry in storage().list("blobs")]
    assert len(old) == 2 and clear_orphans(old) == 0
    change(Dataset, subject, deleted_at=1.0)
    assert clear_orphans(old) == 2 and storage().size(sheet) is None


def test_a_bad_upload_is_rejected_with_the_engines_error_and_its_bytes_are_deleted(both: None) -> None:
    subject = make_upload(b"bad teacher", kind="teacher")
    inspect_next()
    teacher = get(Teacher, subject)
    assert teacher.status == "rejected" and teacher.blob_key is None
    assert teacher.problem == {
        "code": "rejected", "message": "it is bad", "hint": "send a good one", "fault": "user",
        "errors": [{"pointer": "", "message": "bad"}],
    }  # fmt: skip
    assert list(storage().list("uploads")) == [] and list(storage().list("blobs")) == []


def test_what_an_inspection_finds_of_a_teacher_becomes_the_teachers(embedded: None) -> None:
    subject = make_upload(b"teacher", kind="teacher")
    change(Teacher, subject, network="auto", classes=0)
    inspection = claimed("inspect")
    found = {"network": "mlp", "options": {"hidden": [5]}, "classes": 3, "input": {"channels": 1}, "parameters": 9}
    assert InspectionLedger(inspection.record).accept(found, Canonical("key", 1, "0" * 64))
    teacher = get(Teacher, subject)
    assert (teacher.status, teacher.network, teacher.options) == ("ready", "mlp", {"hidden": [5]})
    assert (teacher.classes, teacher.input, teacher.findings) == (3, {"channels": 1}, found)


def test_an_upload_that_crashes_every_engine_is_rejected(embedded: None) -> None:
    subject = make_upload(b"crash")
    statuses = []
    for _ in range(3):
        inspect_next()
        statuses.append(get(Dataset, subject).status)
    assert statuses == ["inspecting", "inspecting", "rejected"]
    assert get(Dataset, subject).problem["code"] == "poison"
    assert "signal 11 (SIGSEGV)" in get(Dataset, subject).problem["message"]


def test_an_upload_that_is_damaged_in_storage_is_rejected(embedded: None) -> None:
    subject = make_upload(b"images")
    storage().put(f"uploads/{subject}/1", b"imagez")
    inspect_next()
    dataset = get(Dataset, subject)
    assert (dataset.status, dataset.problem["code"]) == ("rejected", "upload_lost")
    assert claim("inspect", "w") is None


def test_a_job_is_ready_after_its_check(both: None) -> None:
    job_id = make_job(ready=False)
    upkeep.settle_stuck_jobs()
    assert claim("distill", "w") is None
    inspect_next()
    job = get(Job, job_id)
    assert (job.status, job.ready, job.reason) == ("queued", True, None)
    assert claimed().id == job_id


def test_a_failed_check_fails_the_job_with_pointers(both: None) -> None:
    problem = {
        "fault": "user",
        "code": "invalid_spec",
        "message": "no",
        "hint": "",
        "errors": [{"pointer": "/a", "message": "b"}],
    }
    job_id = make_job(ready=False, error=problem)
    upkeep.settle_stuck_jobs()
    inspect_next()
    job = get(Job, job_id)
    assert (job.status, job.phase, job.error) == ("failed", "validating", problem)
    assert [event.data["status"] for event in events(job_id, "status")] == ["failed"]


def make_check(**script: Any) -> str:
    spec = {"teacher": None, "dataset": None, "student": {}, "labels": {"script": json.dumps(script)}}
    check = Inspection(id=new_id("ins"), kind="check", subject_id="-", resolved=spec)
    with transaction() as session:
        session.add(check)
    return check.id


def test_a_check_without_a_job_records_its_result(both: None) -> None:
    fits, fails = make_check(), make_check(error={"fault": "user", "code": "invalid_spec", "message": "no"})
    inspect_next()
    inspect_next()
    assert (get(Inspection, fits).status, get(Inspection, fits).facts) == ("done", {})
    assert get(Inspection, fails).status == "failed" and get(Inspection, fails).error["code"] == "invalid_spec"
    assert claim("inspect", "w") is None


def test_a_check_without_a_job_that_always_crashes_its_engine_fails(embedded: None) -> None:
    check = make_check(error={"fault": "service", "code": "broken", "message": "it broke"})
    for status in ("queued", "queued", "failed"):
        inspect_next()
        assert get(Inspection, check).status == status
    assert get(Inspection, check).error["code"] == "poison"


def test_an_abandoned_check_is_taken_back_and_removed(embedded: None) -> None:
    answered, forgotten, held = make_check(), make_check(), make_check()
    with transaction() as session:
        session.execute(delete(Inspection).where(Inspection.id == answered))
    change(Inspection, forgotten, created_at=now() - 3600)
    upkeep.clear_checks()
    assert [row.id for row in rows(Inspection)] == [held]
    taken = claimed("inspect")
    with transaction() as session:
        session.execute(delete(Inspection))
    run_inspection(taken, threading.Event(), SCRIPTED)
    assert rows(Inspection) == []


def test_a_job_is_checked_once_its_last_input_is_ready(both: None) -> None:
    key = make_key()
    first, last = (make_upload(json.dumps(FINDINGS[kind]).encode(), kind, key) for kind in ("dataset", "teacher"))
    job_id = make_job(ready=False, key_id=key, teacher_id=last, dataset_id=first)
    inspect_next()
    assert rows(Inspection, subject_id=job_id) == []
    inspect_next()
    assert len(rows(Inspection, subject_id=job_id)) == 1
    upkeep.settle_stuck_jobs()
    assert len(rows(Inspection, subject_id=job_id)) == 1
    inspect_next()
    assert get(Job, job_id).ready


def test_a_job_whose_input_is_rejected_fails(both: None) -> None:
    key = make_key()
    subject = make_upload(b"bad images", key_id=key)
    job_id = make_job(ready=False, key_id=key, dataset_id=subject)
    inspect_next()
    job = get(Job, job_id)
    assert (job.status, job.phase, job.error["code"]) == ("failed", "validating", "input_rejected")
    assert job.error["errors"] == [{"pointer": "/dataset", "message": "the input cannot be used: it is bad"}]


@pytest.mark.parametrize("before", ["claim", "result"])
def test_an_upload_deleted_during_its_inspection_leaves_no_blobs(embedded: None, before: str, monkeypatch: Any) -> None:
    subject = make_upload(b"images")
    if before == "claim":
        change(Dataset, subject, deleted_at=now())
    else:
        run = storage().put
        monkeypatch.setattr(
            storage(),
            "put",
            lambda *given, **more: (change(Dataset, subject, deleted_at=now()), run(*given, **more))[1],
        )
    inspect_next()
    assert get(Dataset, subject).status == "inspecting"
    assert list(storage().list("blobs")) == [] and list(storage().list("uploads")) == []
    assert rows(Inspection, subject_id=subject)[0].status == "done"


def test_a_drain_queues_an_inspection_again(embedded: None, draining: threading.Event) -> None:
    subject = make_upload(b"images")
    change(Dataset, subject, options={"hang": True})
    draining.set()
    inspect_next(draining)
    (inspection,) = rows(Inspection, subject_id=subject)
    assert (inspection.status, inspection.losses, get(Dataset, subject).status) == ("queued", 0, "inspecting")


def test_a_cancelled_job_is_not_checked(both: None) -> None:
    job_id = make_job(ready=False)
    upkeep.settle_stuck_jobs()
    change(Job, job_id, cancel_requested_at=now())
    upkeep.cancel_queued()
    inspect_next()
    assert (get(Job, job_id).status, get(Job, job_id).ready) == ("cancelled", False)


def make_recognised(dataset: str, key: str) -> str:
    """A teacher that is recognised by the images of a dataset."""
    teacher = make_upload(json.dumps(FINDINGS["teacher"]).encode(), "teacher", key)
    change(Teacher, teacher, dataset=dataset)
    return teacher


def test_a_teacher_waits_for_its_dataset_and_gets_it(both: None) -> None:
    key = make_key()
    dataset = make_upload(b"images", key_id=key)
    change(Dataset, dataset, status="waiting")
    with transaction() as session:
        session.execute(delete(Inspection))
    teacher = make_recognised(dataset, key)
    inspect_next()
    (waits,) = rows(Inspection, subject_id=teacher)
    assert (waits.status, waits.losses, get(Teacher, teacher).status) == ("queued", 0, "inspecting")
    assert claim("inspect", "w") is None  # it is put off
    change(Dataset, dataset, status="inspecting")
    with transaction() as session:
        session.add(Inspection(id=new_id("ins"), kind="dataset", subject_id=dataset))
    inspect_next()  # the end of the dataset's inspection makes the teacher's due
    assert get(Dataset, dataset).status == "ready"
    inspect_next()
    assert get(Teacher, teacher).status == "ready"


@pytest.mark.parametrize("fate", ["rejected", "deleted"])
def test_a_teacher_whose_dataset_cannot_be_used_is_rejected_and_says_why(both: None, fate: str) -> None:
    key = make_key()
    dataset = make_upload(b"bad images", key_id=key)
    teacher = make_recognised(dataset, key)
    if fate == "deleted":
        change(Dataset, dataset, deleted_at=now())
    inspect_next()  # the dataset's
    inspect_next()
    found = get(Teacher, teacher)
    assert (found.status, found.problem["code"]) == ("rejected", "input_rejected")
    why = {"rejected": "it is bad", "deleted": "it was deleted"}[fate]
    assert found.problem["errors"] == [
        {"pointer": "/dataset", "message": f"{dataset}: the input cannot be used: {why}"}
    ]
    assert list(storage().list("uploads")) == []


def test_a_dataset_that_is_settled_while_its_teacher_is_put_off_makes_it_due(embedded: None) -> None:
    key = make_key()
    dataset = make_upload(b"images", key_id=key)
    change(Dataset, dataset, status="ready")
    teacher = make_recognised(dataset, key)
    (inspection,) = rows(Inspection, subject_id=teacher)
    change(Inspection, inspection.id, due_at=now() + 60)
    with transaction() as session:
        waiting.wake_teachers_of(session, dataset)
    assert get(Inspection, inspection.id).due_at < inspection.due_at + 60


def in_ranges(*contents: bytes, sha256: str | None = None) -> str:
    """An upload that was sent in ranges."""
    subject = make_upload(b"unused")
    parts = []
    for number, content in enumerate(contents):
        key = f"uploads/{subject}/range{number}"
        stored = storage().put(key, content)
        parts.append({"key": key, "size": stored.size, "sha256": stored.sha256})
    storage().delete(f"uploads/{subject}/1")
    change(Dataset, subject, upload_key=None, upload_parts=parts, size=sum(map(len, contents)), sha256=sha256)
    return subject


def test_ranges_are_joined_and_deleted(both: None) -> None:
    subject = in_ranges(b"ima", b"", b"ges")
    inspect_next()
    dataset = get(Dataset, subject)
    assert dataset.status == "ready" and b"".join(storage().get(dataset.blob_key)) == b"IMAGES"
    assert dataset.sha256 == hashlib.sha256(b"images").hexdigest()
    assert dataset.upload_parts is None and list(storage().list("uploads")) == []


def test_ranges_that_do_not_have_the_announced_hash_are_rejected(embedded: None) -> None:
    subject = in_ranges(b"ima", b"ges", sha256=hashlib.sha256(b"other").hexdigest())
    inspect_next()
    dataset = get(Dataset, subject)
    assert dataset.status == "rejected" and "as announced" in dataset.problem["message"]
    assert list(storage().list("uploads")) == []
