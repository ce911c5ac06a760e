"""Retention on both databases, and the cost of a pass without due rows."""

from collections.abc import Callable
from typing import Any

import pytest
from sqlalchemy import Select, insert, text
from sqlalchemy.dialects import postgresql, sqlite

from models.database import Record, engine, now, reading, transaction
from models.records import (
    Artifact,
    Attempt,
    Event,
    File,
    Idempotency,
    Inspection,
    Job,
    Metric,
    Preview,
    Teacher,
    WebhookDelivery,
    Worker,
)
from models.records.columns import new_id
from models.status import UploadStatus
from models.storage.opening import storage
from tests.worker.scenes import change, events, get, make_job, make_key, make_upload, rows, run_next
from worker.ledger import presence
from worker.upkeep import retention, upkeep
from worker.webhooks import deliveries

DAY = 24 * 3600.0


def keys() -> set[str]:
    return {entry.key for entry in storage().list()}


def ended(days: float, **script: Any) -> str:
    """A job that ended `days` ago."""
    job_id = make_job(steps=12, checkpoint_every=6, stderr="a line", **script)
    assert run_next().status == "succeeded"
    with transaction() as session:
        session.add(Idempotency(key_id=get(Job, job_id).key_id, idempotency_key=job_id, fingerprint="x", job_id=job_id))
    for table, column in (
        (Job, "finished_at"), (Artifact, "created_at"), (Preview, "created_at"), (Attempt, "ended_at"),
        (Idempotency, "created_at"),
    ):  # fmt: skip
        of_job = table.id if table is Job else table.job_id
        with transaction() as session:
            session.query(table).where(of_job == job_id).update({column: now() - days * DAY})
    upkeep.clear_checkpoints()
    return job_id


def left(job_id: str) -> dict[str, int]:
    """Whether a job still has rows, by kind."""
    logs = [row for row in rows(Attempt, job_id=job_id) if row.log_key]
    found = {table.__tablename__: len(rows(table, job_id=job_id)) for table in (Artifact, Preview, Event, Metric)}
    return {name: bool(count) for name, count in (found | {"logs": len(logs)}).items()}


ALL = {"artifacts": True, "previews": True, "events": True, "metrics": True, "logs": True}
KEEP = {"keep_artifacts_days": 200, "keep_previews_days": 30, "keep_history_days": 90}


def test_the_data_of_a_job_is_removed_after_its_retention_time(both: None, configure: Callable[..., Any]) -> None:
    configure(**KEEP)
    young, old, ancient = ended(29), ended(100), ended(201)
    version = get(Job, ancient).version
    retention.clear()
    assert left(young) == ALL
    assert left(old) == ALL | {"previews": False, "logs": False, "events": False, "metrics": False}
    assert left(ancient) == dict.fromkeys(ALL, False)
    assert {key.split("/")[1] for key in keys() if "previews" in key or "log" in key} == {young}
    assert {key.split("/")[1] for key in keys()} == {young, old}
    gone = get(Job, ancient)
    assert gone.artifacts_removed_at is not None and gone.history_removed_at is not None
    assert gone.version == version + 3 and gone.status == "succeeded" and gone.resolved
    assert (get(Job, old).artifacts_removed_at, get(Job, young).history_removed_at) == (None, None)
    assert [row.idempotency_key for row in rows(Idempotency)] == []
    assert sum(retention.clear().values()) == 0
    assert events(young)


def test_a_retention_time_of_zero_keeps_everything(embedded: None, configure: Callable[..., Any]) -> None:
    names = ("artifacts", "previews", "history", "unsent", "rejected", "deliveries")
    configure(**{f"keep_{name}_days": 0 for name in names})
    job_id, upload = ended(5000), make_upload(b"", "teacher", status="waiting")
    change(Teacher, upload, updated_at=now() - 5000 * DAY)
    before = keys()
    retention.clear()
    assert left(job_id) == ALL and keys() == before and get(Teacher, upload).deleted_at is None


def test_a_running_job_keeps_its_events(both: None) -> None:
    job_id = make_job()
    change(Job, job_id, status="running", started_at=now() - 300 * DAY)
    with transaction() as session:
        values = {"job_id": job_id, "seq": 1, "attempt": 1, "type": "log", "message": "x"}
        session.execute(insert(Event).values(**values, created_at=now() - 200 * DAY))
    retention.clear()
    assert len(rows(Event)) == 1


def test_history_is_removed_in_batches_and_continues_after_a_kill(
    both: None, configure: Callable[..., Any], monkeypatch: Any
) -> None:
    configure(**KEEP)
    monkeypatch.setattr(retention, "ROWS_AT_ONCE", 4)
    job_id = ended(100)
    with transaction() as session:
        session.query(Event).where(Event.job_id == job_id, Event.seq < 6).delete()
    assert retention.clear()["histories"] == 1
    assert rows(Event) == [] and rows(Metric) == []


def test_blobs_left_by_a_killed_pass_are_orphans(embedded: None, configure: Callable[..., Any]) -> None:
    configure(**KEEP)
    job_id = ended(300)
    before = keys()

    def killed(*_: Any) -> None:
        raise KeyboardInterrupt

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(retention, "_discard", killed)
        with pytest.raises(KeyboardInterrupt):
            retention.clear()
    assert keys() == before and rows(Artifact, job_id=job_id) == [] and get(Job, job_id).artifacts_removed_at
    retention.clear()
    from tests.worker.upkeep.test_orphans import as_old_as
    from worker.upkeep.orphans import clear_orphans

    assert clear_orphans(as_old_as(25 * 3600)) >= 1
    assert keys() == set()


def test_unsent_and_rejected_uploads_are_removed(both: None) -> None:
    key = make_key()
    uploads = {
        (status, days): make_upload(b"x", "teacher", key, status=status)
        for status in ("waiting", "rejected", "ready", "inspecting")
        for days in (6, 8, 31)
    }
    for (_, days), upload in uploads.items():
        change(Teacher, upload, updated_at=now() - days * DAY)
    job = make_job(ready=False, key_id=key, teacher_id=uploads["waiting", 8])
    retention.clear()
    hidden = {name for name, upload in uploads.items() if get(Teacher, upload).deleted_at is not None}
    assert hidden == {("waiting", 8), ("waiting", 31), ("rejected", 31)}
    failed = get(Job, job)
    assert (failed.status, failed.error["code"]) == ("failed", "input_rejected")
    assert "the bytes of the upload were not sent within 7 days" in failed.error["message"]
    assert sum(retention.clear().values()) == 0


def test_old_deliveries_inspections_and_workers_are_removed(both: None) -> None:
    job_id = make_job()
    hook = {"job_id": job_id, "key_id": get(Job, job_id).key_id, "type": "job.failed", "body": "{}", "url": "u"}
    with transaction() as session:
        for name, status, days in (("new", "failed", 29), ("old", "failed", 31), ("pending", "pending", None)):
            over = None if days is None else now() - days * DAY
            row = {"id": name, "status": status, "finished_at": over, "created_at": now() - 50 * DAY, "origin": "o"}
            session.execute(insert(WebhookDelivery).values(due_at=now(), tries=[], attempt=0, pauses=0, **row, **hook))
        for name, status, days in (("a", "done", 6), ("b", "done", 8), ("c", "failed", 8), ("d", "queued", None)):
            over = None if days is None else now() - days * DAY
            session.add(Inspection(id=name, kind="job", subject_id=job_id, status=status, finished_at=over))
    gone, there = presence.register("distill"), presence.register("distill")
    change(Worker, gone, seen_at=now() - 8 * DAY, left_at=now() - 8 * DAY)
    removed = retention.clear()
    presence.dismiss_unseen()
    assert {row.id for row in rows(WebhookDelivery)} == {"new", "pending"}
    assert {row.id for row in rows(Inspection)} == {"a", "d"}
    assert {row.id for row in rows(Worker)} == {there}
    assert (removed["deliveries"], removed["inspections"]) == (1, 2)


def test_a_worker_that_crashed_after_it_was_marked_is_not_busy_for_ever(both: None) -> None:
    """It was suspended, marked as stopped, resumed, claimed work and was killed before its next sweep."""
    crashed, working = presence.register("distill"), presence.register("distill")
    change(Worker, crashed, seen_at=now() - 3600, left_at=now() - 1800, busy_with="job_1")
    change(Worker, working, busy_with="job_2")
    presence.dismiss_unseen()
    assert {row.id: row.busy_with for row in rows(Worker)} == {crashed: None, working: "job_2"}
    assert get(Worker, working).left_at is None


def test_a_pass_is_limited_and_the_next_one_follows_at_once(embedded: None, monkeypatch: Any) -> None:
    monkeypatch.setattr(retention, "AT_ONCE", 2)
    key = make_key()
    for _ in range(5):
        change(File, _file(key), updated_at=now() - 8 * DAY)
    duty = retention.Retention()
    monkeypatch.setattr(duty, "_next_at", 0.0)
    assert [duty.clear() for _ in range(5)] == [2, 2, 1, 0, 0]


def _file(key: str) -> str:
    row = File(id=new_id("fil"), key_id=key, name="f", kind="weights")
    with transaction() as session:
        session.add(row)
    return row.id


DUE: dict[str, Callable[[], Select[Any]]] = {
    "artifacts": retention.due_artifacts,
    "previews": retention.due_previews,
    "attempts": retention.due_logs,
    "jobs": retention.due_histories,
    "teachers": lambda: retention.due_uploads(Teacher, UploadStatus.WAITING, 7),
    "idempotency": retention.due_idempotency_keys,
    "webhook_deliveries": retention.due_deliveries,
    "inspections": retention.due_inspections,
    "deliveries that are due": lambda: deliveries.due(["example.org:443"], ["key_1"]).limit(1),
}


def test_no_pass_reads_a_whole_table(both: None, configure: Callable[..., Any]) -> None:
    configure(**KEEP)
    _fill(1500)
    for name, due in DUE.items():
        plan = _plan(due())
        whole = [
            line for line in plan.splitlines() if line.startswith("SCAN") and line.split()[1] in Record.metadata.tables
        ]
        assert "Seq Scan" not in plan and not [line for line in whole if " INDEX " not in line], f"{name}: {plan}"
        assert "Index Cond" in plan or "SEARCH" in plan or name != "deliveries that are due", f"{name}: {plan}"
        assert "Sort" not in plan and "TEMP B-TREE" not in plan, f"{name}: {plan}"


def _plan(query: Select[Any]) -> str:
    dialect = postgresql.dialect() if engine().dialect.name == "postgresql" else sqlite.dialect()
    written = str(query.compile(dialect=dialect, compile_kwargs={"literal_binds": True}))
    explain = "EXPLAIN" if engine().dialect.name == "postgresql" else "EXPLAIN QUERY PLAN"
    with reading() as session:
        return "\n".join(str(row[-1]) for row in session.connection().exec_driver_sql(f"{explain} {written}"))


def _fill(count: int) -> None:
    """`count` rows of every kind, none of them due."""
    key = make_key()
    ids = [f"job_{number}" for number in range(count)]
    file = {"key": "k", "content_type": "x/y", "size": 1, "sha256": "a" * 64, "attempt": 1}
    contract = {"network": "x", "classes": 2, "input": {}}
    hook = {"key_id": key, "type": "t", "url": "u", "origin": "o", "body": "{}", "status": "failed"}
    with transaction() as session:
        job = {"key_id": key, "name": "j", "status": "failed", "spec": {}, "resolved": {}, "finished_at": 4e9}
        session.execute(insert(Job), [job | {"id": one} for one in ids])
        session.execute(insert(Artifact), [file | {"id": one, "job_id": one, "name": "a"} for one in ids])
        session.execute(insert(Preview), [file | {"id": one, "job_id": one, "name": "a", "step": 1} for one in ids])
        attempt = {"number": 1, "worker_id": "w", "log_key": "k", "ended_at": 4e9}
        session.execute(insert(Attempt), [attempt | {"job_id": one} for one in ids])
        upload = {"key_id": key, "name": "t", "status": "waiting"} | contract
        session.execute(insert(Teacher), [upload | {"id": one} for one in ids])
        promise = {"key_id": key, "fingerprint": "x"}
        session.execute(insert(Idempotency), [promise | {"idempotency_key": one, "job_id": one} for one in ids])
        session.execute(insert(WebhookDelivery), [hook | {"id": one, "job_id": one, "finished_at": 4e9} for one in ids])
        inspection = {"kind": "job", "status": "done", "finished_at": 4e9}
        session.execute(insert(Inspection), [inspection | {"id": one, "subject_id": one} for one in ids])
        session.execute(text("ANALYZE"))
