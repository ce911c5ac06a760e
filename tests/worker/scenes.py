"""Rows and runs for tests of the worker."""

import json
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

from sqlalchemy import select, update

from models.database import Record, reading, transaction
from models.records import Dataset, Event, Inspection, Job, Key, Teacher
from models.records.columns import new_id
from models.storage.opening import storage
from worker.attempt.job import run_job
from worker.ledger import presence
from worker.ledger.claims import Claim, claim

FINDINGS: dict[str, dict[str, Any]] = {
    "teacher": {"differentiable": True, "batch_norm": False, "taps": {}, "stages": []},
    "dataset": {"classes": 10, "image": {"channels": 1, "height": 32, "width": 32}, "splits": {"train": 100}},
}
PREFIXES = {"teacher": "tch", "dataset": "dts"}
INPUT = {"channels": 1, "height": 32, "width": 32, "mean": [0.13], "std": [0.31]}
SCRIPTED = (sys.executable, "-P", str(Path(__file__).with_name("scripted_engine.py")))


def make_key() -> str:
    key = Key(id=new_id("key"), name="test", hash=new_id("hash"))
    with transaction() as session:
        session.add(key)
    return key.id


def make_job(ready: bool = True, priority: int = 0, key_id: str | None = None, **script: Any) -> str:
    columns = {name: script.pop(name) for name in ("teacher_id", "dataset_id", "evaluation_id") if name in script}
    if not (ready or columns):
        columns["teacher_id"] = make_upload(b"weights", "teacher", key_id := key_id or make_key(), status="ready")
    spec = {
        "teacher": columns.get("teacher_id"),
        "dataset": columns.get("dataset_id"),
        "student": {"network": "lenet5_half"},
        "labels": {"script": json.dumps(script)},
    }
    job = Job(
        id=new_id("job"), key_id=key_id or make_key(), name="job", ready=ready, priority=priority, spec=spec,
        resolved=spec, **columns,
    )  # fmt: skip
    with transaction() as session:
        session.add(job)
    return job.id


def make_upload(
    content: bytes, kind: str = "dataset", key_id: str | None = None, status: str = "inspecting", **options: Any
) -> str:
    """An upload with bytes, and its inspection unless the upload is inspected."""
    key_id = key_id or make_key()
    own: dict[str, Any] = {"options": options}
    if kind == "teacher":
        own |= {"network": "lenet5", "classes": 10, "input": INPUT, "options": {}}
    table: type[Teacher] | type[Dataset] = Teacher if kind == "teacher" else Dataset
    subject = table(id=new_id(PREFIXES[kind]), key_id=key_id, name="upload", status=status, **own)
    if status == "ready":
        subject.findings = FINDINGS[kind]
    stored = storage().put(f"uploads/{subject.id}/1", content)
    subject.upload_key, subject.size, subject.sha256 = f"uploads/{subject.id}/1", stored.size, stored.sha256
    with transaction() as session:
        session.add(subject)
        if status == "inspecting":
            session.add(Inspection(id=new_id("ins"), kind=kind, subject_id=subject.id, key_id=key_id))
    return subject.id


def get(table: type[Record], identifier: Any) -> Any:
    with reading() as session:
        return session.get_one(table, identifier)


def rows(table: type[Record], **columns: Any) -> list[Any]:
    with reading() as session:
        return list(session.scalars(select(table).filter_by(**columns)))


def events(job_id: str, type: str | None = None) -> list[Event]:
    with reading() as session:
        found = session.scalars(select(Event).where(Event.job_id == job_id).order_by(Event.seq)).all()
    assert [event.seq for event in found] == list(range(1, len(found) + 1))
    return [event for event in found if type in (None, event.type)]


def change(table: Any, identifier: str, **values: Any) -> None:
    with transaction() as session:
        session.execute(update(table).where(table.id == identifier).values(**values))


def claimed(kind: Any = "distill") -> Claim:
    taken = claim(kind, presence.register(kind))
    assert taken is not None
    return taken


def run_next(draining: threading.Event | None = None) -> Job:
    """Claim the next due job and run one attempt at it."""
    taken = claimed()
    run_job(taken, draining or threading.Event(), SCRIPTED)
    return get(Job, taken.id)


def in_thread(work: Callable[[], Any]) -> threading.Thread:
    thread = threading.Thread(target=work, daemon=True)
    thread.start()
    return thread


def artifact(job_id: str, name: str = "student.safetensors") -> bytes:
    from models.records import Artifact

    (row,) = rows(Artifact, job_id=job_id, name=name)
    return b"".join(storage().get(row.key))
