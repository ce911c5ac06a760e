"""Checks of specs that one engine runs together, and what one of them does to the others."""

import json
import signal
import threading
from pathlib import Path
from typing import Any

import pytest

from models.database import transaction
from models.records import Inspection, Job, Worker
from models.records.columns import new_id
from models.storage.opening import storage
from tests.worker.attempt.test_inspection import make_check
from tests.worker.scenes import INPUT, SCRIPTED, change, get, in_thread, make_job, make_key, make_upload, rows
from worker.attempt import checks
from worker.attempt.checks import run_checks
from worker.ledger import presence
from worker.ledger.claims import CHECKS_TOGETHER, claim_together
from worker.tasks import DueWork
from worker.upkeep import upkeep

NO = {"fault": "user", "code": "invalid_spec", "message": "no"}


def states(*checks: str) -> list[str]:
    return [get(Inspection, each).status for each in checks]


def engines(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The kinds of the job files that engines are started with from now on."""
    started: list[str] = []
    original = checks.EngineProcess.__enter__

    def enter(engine: Any) -> Any:
        started.append(json.loads((engine.folder / "job.json").read_text())["kind"])
        return original(engine)

    monkeypatch.setattr(checks.EngineProcess, "__enter__", enter)
    return started


def work() -> None:
    DueWork("inspect", presence.register("inspect"), SCRIPTED).run()


def test_one_engine_checks_all_that_wait(both: None, monkeypatch: pytest.MonkeyPatch) -> None:
    started = engines(monkeypatch)
    jobs = [make_job(ready=False, **({"error": NO} if number == 1 else {})) for number in range(4)]
    upkeep.settle_stuck_jobs()
    check = make_check()
    work()
    assert started == ["checks"]
    assert [(get(Job, job).status, get(Job, job).ready) for job in jobs] == [
        ("queued", True), ("failed", False), ("queued", True), ("queued", True),
    ]  # fmt: skip
    assert get(Job, jobs[1]).error["code"] == "invalid_spec"
    assert get(Inspection, check).status == "done" and "number" in get(Inspection, check).facts
    assert {row.lease_owner for row in rows(Inspection)} == {None}
    assert {row.busy_with for row in rows(Worker)} == {None}


def test_a_check_that_ends_the_engine_takes_no_other_with_it(both: None, monkeypatch: pytest.MonkeyPatch) -> None:
    started = engines(monkeypatch)
    first, second = make_check(), make_check()
    kills = make_check(kill=signal.SIGSEGV)
    last = [make_check() for _ in range(2)]
    work()
    assert states(first, second, *last) == ["done"] * 4
    assert [get(Inspection, each).losses for each in (first, second, *last)] == [0] * 4
    assert get(Inspection, kills).status == "failed" and get(Inspection, kills).error["code"] == "poison"
    assert started == ["checks", *["check"] * 3, "checks"]  # the one that kills runs alone three times


@pytest.mark.parametrize("code", ["out_of_memory", "disk_error"])
def test_an_error_that_may_be_due_to_other_checks_is_not_believed(
    embedded: None, monkeypatch: pytest.MonkeyPatch, code: str
) -> None:
    started = engines(monkeypatch)
    fault = "job" if code == "out_of_memory" else "service"
    first, unsure = make_check(), make_check(error={"fault": fault, "code": code, "message": "it broke"})
    work()
    assert started[:2] == ["checks", "check"] and states(first) == ["done"]
    assert get(Inspection, unsure).status == ("failed" if fault == "job" else "queued")


def test_a_check_that_does_not_end_is_run_alone_and_the_others_go_on(
    embedded: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(checks, "TOGETHER_SECONDS", 0.5)
    started = engines(monkeypatch)
    hangs, other = make_check(hang=True), make_check()
    draining = threading.Event()
    worker = DueWork("inspect", presence.register("inspect"), SCRIPTED)
    worker.draining = draining
    thread = in_thread(worker.run)
    from tests.worker.attempt.test_job import eventually

    eventually(lambda: started[:2] == ["checks", "check"])
    draining.set()
    thread.join(60)
    assert states(hangs) == ["queued"] and get(Inspection, hangs).lease_owner is None
    work_left = claim_together("inspect", presence.register("inspect"))
    assert {one.id for one in work_left} == {hangs, other}


def test_drained_checks_go_back_to_the_queue(embedded: None, draining: threading.Event) -> None:
    hangs, other = make_check(hang=True), make_check()
    claims = claim_together("inspect", presence.register("inspect"))
    draining.set()
    run_checks(claims, draining, SCRIPTED)
    assert states(hangs, other) == ["queued"] * 2
    assert [get(Inspection, each).losses for each in (hangs, other)] == [0, 0]


def test_a_check_that_was_taken_back_or_cancelled_does_not_stop_the_others(both: None) -> None:
    checked = [make_check() for _ in range(3)]
    cancelled = make_job(ready=False)
    upkeep.settle_stuck_jobs()
    claims = claim_together("inspect", presence.register("inspect"))
    assert len(claims) == 4
    change(Inspection, checked[1], attempt=7)
    change(Job, cancelled, status="cancelled")
    run_checks(claims, threading.Event(), SCRIPTED)
    assert states(*checked) == ["done", "running", "done"]
    (of_job,) = rows(Inspection, subject_id=cancelled)
    assert of_job.status == "done" and not get(Job, cancelled).ready


def test_a_check_that_reads_a_file_has_an_engine_of_its_own(embedded: None, monkeypatch: pytest.MonkeyPatch) -> None:
    started = engines(monkeypatch)
    key = make_key()
    teacher = make_upload(b"program", "teacher", key, status="ready")
    from models.records import Teacher

    blob = storage().put(f"blobs/{teacher}/1", b"program")
    change(Teacher, teacher, network="program", blob_key=f"blobs/{teacher}/1", blob_size=7, blob_sha256=blob.sha256)
    plain = [make_job(ready=False, key_id=key) for _ in range(2)]
    program = make_job(ready=False, key_id=key, teacher_id=teacher)
    upkeep.settle_stuck_jobs()
    work()
    assert started == ["checks", "check"]
    assert all(get(Job, job).ready for job in (*plain, program))


def test_checks_are_claimed_together_in_their_order_up_to_the_most(both: None) -> None:
    made = [make_check() for _ in range(CHECKS_TOGETHER + 2)]
    change(Inspection, made[-1], rank=-5, priority=5)
    upload = make_upload(b"images")
    worker = presence.register("inspect")
    first = claim_together("inspect", worker, "checks")
    assert [one.id for one in first] == [made[-1], *made[: CHECKS_TOGETHER - 1]]
    assert get(Worker, worker).busy_with == first[-1].id
    assert {one.attempt for one in first} == {1} and set(states(*(one.id for one in first))) == {"running"}
    [next_upload] = claim_together("inspect", worker, "uploads first")
    assert next_upload.record.subject_id == upload  # type: ignore[union-attr]
    assert [one.id for one in claim_together("inspect", worker)] == made[CHECKS_TOGETHER - 1 : -1]
    assert claim_together("inspect", worker) == []


def test_a_check_that_was_lost_is_claimed_alone(both: None) -> None:
    lost, *others = (make_check() for _ in range(3))
    worker = presence.register("inspect")
    change(Inspection, others[0], losses=1)
    assert [one.id for one in claim_together("inspect", worker)] == [lost, others[1]]
    assert [one.id for one in claim_together("inspect", worker)] == [others[0]]
    change(Inspection, lost, status="queued", losses=1)
    change(Inspection, others[1], status="queued")
    assert [one.id for one in claim_together("inspect", worker)] == [lost]


def test_keys_take_turns_in_checks_that_are_claimed_together(both: None) -> None:
    many, one = make_key(), make_key()

    def check_of(key: str) -> str:
        row = Inspection(id=new_id("ins"), kind="check", subject_id="-", key_id=key, resolved={})
        with transaction() as session:
            session.add(row)
        return row.id

    for _ in range(3 * CHECKS_TOGETHER):
        check_of(many)
    single = check_of(one)
    assert single in [each.id for each in claim_together("inspect", presence.register("inspect"))][:2]


def test_a_failure_of_the_worker_puts_all_of_them_back(embedded: None, monkeypatch: pytest.MonkeyPatch) -> None:
    made = [make_check() for _ in range(3)]

    def broken(*arguments: Any) -> None:
        raise RuntimeError("nobody thought of this")

    monkeypatch.setattr(checks, "write_job_file", broken)
    work()
    assert states(*made) == ["queued"] * 3 and [get(Inspection, each).losses for each in made] == [1] * 3
    monkeypatch.undo()


@pytest.mark.slow
def test_the_real_engine_checks_several_specs(tmp_path: Path) -> None:
    """Each has the same result as in an engine of its own."""
    from worker.engine.engine_process import ENGINE, EngineProcess

    base = {
        "task": "classification", "student": {"network": "lenet5_half", "initial_weights": "random"},
        "source": {"name": "dataset"}, "procedure": {"name": "direct"},
        "objectives": [{"name": "kd", "weight": 1.0}], "training": {"steps": 10},
    }  # fmt: skip
    specs = [
        base,
        base | {"student": {"network": "no_such_network"}},
        base | {"objectives": [{"name": "hint", "weight": 1.0, "pairs": [["nowhere", "conv1"]]}]},
        base | {"student": {"network": "mlp", "options": {"hidden": [8]}}},
    ]
    teacher = {"network": "lenet5", "classes": 10, "input": INPUT}
    found = {"dataset_findings": None, "evaluation_findings": None, "files": {}, "pretrained": {}}
    files = [found | {"kind": "check", "spec": spec, "teacher": teacher} for spec in specs]
    (tmp_path / "job.json").write_text(json.dumps({"kind": "checks", "sandbox": "preferred", "checks": files}))
    with EngineProcess(tmp_path, ENGINE, 1, trains=False) as engine:
        results = [event for event in engine.events(60.0) if event and event["event"] == "result"]
        assert engine.exit().code == 0
    assert [event["number"] for event in results] == [0, 1, 2, 3]
    for number, file in enumerate(files):
        own = tmp_path / str(number)
        own.mkdir()
        (own / "job.json").write_text(json.dumps(file))
        with EngineProcess(own, ENGINE, 1, trains=False) as engine:
            list(engine.events(60.0))
            engine.exit()
        assert engine.final_event is not None
        alone = engine.final_event
        expected = {"facts": alone["facts"]} if alone["event"] == "checked" else {"error": alone}
        assert {name: results[number][name] for name in expected} == expected
    assert ["error" in event for event in results] == [False, True, True, False]


@pytest.mark.parametrize("together", [False, True])
def test_a_check_whose_teacher_does_not_exist_any_more_fails_with_its_place(embedded: None, together: bool) -> None:
    spec = {"teacher": "tch_gone", "student": {}, "labels": {"script": "{}"}}
    with transaction() as session:
        session.add(Inspection(id=(gone := new_id("ins")), kind="check", subject_id="-", resolved=spec))
    others = [make_check()] if together else []
    work()
    assert states(gone, *others) == ["failed", *["done"] * len(others)]
    assert get(Inspection, gone).error["code"] == "input_missing"
    assert get(Inspection, gone).error["errors"][0]["pointer"] == "/teacher"
