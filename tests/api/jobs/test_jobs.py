"""Jobs: submit, follow, cancel, retry, delete."""

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import httpx
import pytest
from sqlalchemy import delete, func, select, update

from models.database import now
from models.idempotency import KEPT_SECONDS
from models.records import Attempt, Event, Idempotency, Inspection, Job, Worker
from models.records.columns import new_id
from tests.api.service import Service, User, pointers, problem


def spec(teacher: str, **more: Any) -> dict[str, Any]:
    return {"teacher": teacher, "student": {"network": "lenet5_half"}} | more


def submitted(user: User, body: dict[str, Any], **headers: str) -> dict[str, Any]:
    response = user.http.post("/jobs", json=body, headers=headers)
    assert response.status_code == 202, response.text
    assert response.headers["location"] == response.json()["links"]["self"]
    return dict(response.json())


def inspections(user: User, job: str) -> list[Inspection]:
    with user.service.rows() as session:
        return list(session.scalars(select(Inspection).where(Inspection.subject_id == job)))


def test_a_job_with_ready_inputs_is_queued_and_checked(user: User) -> None:
    teacher, dataset = user.teacher(), user.dataset()
    body = spec(teacher, dataset=dataset, evaluation={"dataset": dataset}, labels={"a": "b"}, priority=3, name="mine")
    job = submitted(user, body)
    assert (job["status"], job["name"], job["labels"], job["priority"]) == ("queued", "mine", {"a": "b"}, 3)
    assert job["spec"] == body and job["resolved"]["training"]["batch_size"] > 0
    assert job["error"] is None and job["metrics"] == {} and job["queue_position"] is None
    [inspection] = inspections(user, job["id"])
    assert (inspection.kind, inspection.status) == ("job", "queued")
    with user.service.rows() as session:
        row = session.get_one(Job, job["id"])
        event = session.scalars(select(Event).where(Event.job_id == job["id"])).one()
    assert (row.teacher_id, row.dataset_id, row.evaluation_id) == (teacher, dataset, dataset)
    assert not row.ready and row.event_seq == event.seq == 1
    assert event.type == "status" and event.data["status"] == "queued"


@pytest.mark.parametrize(("status", "word"), [("waiting", "bytes"), ("inspecting", "inspection")])
def test_a_job_waits_for_its_inputs(user: User, status: str, word: str) -> None:
    teacher, dataset = user.teacher(status), user.dataset()
    job = submitted(user, spec(teacher, dataset=dataset))
    assert job["status"] == "queued" and word in job["reason"] and teacher in job["reason"]
    assert inspections(user, job["id"]) == []
    checked = user.http.post("/jobs:validate", json=spec(teacher, dataset=dataset)).json()
    assert teacher in checked["waits_for"] and teacher in checked["unchecked"]


def test_a_rejected_or_unknown_input_is_a_422_with_its_pointer(user: User, other: User) -> None:
    wrong = "tch_" + "0" * 32
    for teacher in (user.teacher("rejected"), other.teacher(), wrong):
        for path in ("/jobs", "/jobs:validate"):
            assert pointers(user.http.post(path, json=spec(teacher))) == ["/teacher"]
    deleted = user.teacher()
    user.http.delete(f"/teachers/{deleted}")
    assert pointers(user.http.post("/jobs", json=spec(deleted))) == ["/teacher"]
    mine, theirs = user.teacher(), other.dataset()
    both = spec(mine, dataset=theirs, evaluation={"dataset": theirs})
    assert pointers(user.http.post("/jobs", json=both)) == ["/dataset", "/evaluation/dataset"]
    weights = {"network": "lenet5_half", "initial_weights": "fil_" + "0" * 32}
    assert pointers(user.http.post("/jobs", json=spec(mine, student=weights))) == ["/student/initial_weights"]


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ({"objectives": ["nonsense"]}, ["/objectives/0"]),
        ({"objectives": [{"name": "kd"}, {"name": "kd", "temperature": -1}]}, ["/objectives/1/temperature"]),
        ({"objectives": [{"name": "kd", "odd": 1}]}, ["/objectives/0/odd"]),
        ({"student": {"network": "lenet5_half", "options": {"odd": 1}}}, ["/student/options/odd"]),
        ({"student": {"network": "nonsense"}}, ["/student/network"]),
        ({"training": {"epochs": 0, "batch_size": "x"}}, ["/training/epochs", "/training/batch_size"]),
        ({"objectives": ["cross_entropy"]}, ["/objectives/0"]),
        ({"teacher": "job_1"}, ["/teacher"]),
        ({"odd": 1}, ["/odd"]),
    ],
)
def test_a_wrong_spec_is_a_422_with_pointers(alone: User, change: dict[str, Any], expected: list[str]) -> None:
    body = spec(alone.teacher()) | change
    found = pointers(alone.http.post("/jobs", json=body))
    assert found == expected
    assert pointers(alone.http.post("/jobs:validate", json=body)) == expected
    assert alone.http.get("/jobs").json()["data"] == []


def test_a_dry_run_creates_no_job(user: User) -> None:
    body = spec(user.teacher())
    checked = user.http.post("/jobs:validate", json=body).json()
    assert (
        checked["waits_for"] is None and checked["checked"] == ["spec"] and "no inspect worker" in checked["unchecked"]
    )
    assert checked["resolved"] == submitted(user, body)["resolved"]
    assert len(user.http.get("/jobs").json()["data"]) == 1


@contextmanager
def inspect_worker_row(service: Service) -> Iterator[None]:
    """A worker's row, which is all that the API sees of a worker."""
    with service.rows() as session:
        session.add(Worker(id=(identifier := new_id("wrk")), kind="inspect", host="here", process=1))
    yield
    with service.rows() as session:
        session.execute(delete(Worker).where(Worker.id == identifier))


def test_a_dry_run_without_a_result_in_time_says_so_and_leaves_no_row(user: User) -> None:
    with inspect_worker_row(user.service):
        for wait, expected in (("1", "within 1 s"), ("0", "did not wait")):
            response = user.http.post("/jobs:validate", json=spec(user.teacher()), headers={"Prefer": f"wait={wait}"})
            assert response.json()["checked"] == ["spec"] and expected in response.json()["unchecked"]
    with user.service.rows() as session:
        assert session.scalars(select(Inspection.id).where(Inspection.kind == "check")).all() == []


@pytest.mark.parametrize("fault", ["user", "service", None])
def test_a_dry_run_responds_as_soon_as_the_check_has_ended(user: User, fault: str | None) -> None:
    errors = [{"pointer": "/objectives/0/taps", "message": "no such layer"}]
    error = (
        {"fault": fault, "code": "c", "message": "it broke", "hint": "Do this.", "errors": errors} if fault else None
    )

    def finish_check() -> None:
        values = {"status": "failed" if error else "done", "error": error, "facts": None if error else {"a": 1}}
        for _ in range(200):
            time.sleep(0.05)
            with user.service.rows() as session:
                waiting = Inspection.kind == "check", Inspection.resolved["teacher"].as_string() == teacher
                if session.execute(update(Inspection).where(*waiting).values(**values)).rowcount:
                    return

    teacher = user.teacher()
    worker = threading.Thread(target=finish_check)
    with inspect_worker_row(user.service):
        worker.start()
        answered = user.http.post("/jobs:validate", json=spec(teacher))
        worker.join()
    if fault == "user":
        document = problem(answered, 422, "invalid")
        assert document["errors"] == errors and "Do this." in document["detail"]
    elif fault == "service":
        assert answered.json()["checked"] == ["spec"] and "it broke" in answered.json()["unchecked"]
    else:
        assert answered.json()["checked"] == ["spec", "networks"] and answered.json()["facts"] == {"a": 1}


def test_the_same_idempotency_key_and_body_create_one_job(user: User, other: User) -> None:
    body = spec(user.teacher())
    first = submitted(user, body, **{"Idempotency-Key": "k1"})
    response = user.http.post("/jobs", json=dict(reversed(body.items())), headers={"Idempotency-Key": "k1"})
    assert response.status_code == 202 and response.json()["id"] == first["id"]
    assert response.headers["idempotency-replayed"] == "true"
    assert pointers(user.http.post("/jobs", json=body | {"priority": 1}, headers={"Idempotency-Key": "k1"})) == [
        "Idempotency-Key"
    ]
    theirs = submitted(other, spec(other.teacher()), **{"Idempotency-Key": "k1"})
    assert len({first["id"], theirs["id"], submitted(user, body, **{"Idempotency-Key": "k2"})["id"]}) == 3
    assert pointers(user.http.post("/jobs", json=body, headers={"Idempotency-Key": "x" * 256}))
    assert pointers(user.http.post("/jobs", json=body, headers={"Idempotency-Key": ""}))


def test_an_idempotency_key_expires_after_a_day(user: User) -> None:
    body, key = spec(user.teacher()), {"Idempotency-Key": "daily"}
    first = submitted(user, body, **key)["id"]
    for age, same in ((KEPT_SECONDS - 60, True), (KEPT_SECONDS + 60, False)):
        with user.service.rows() as session:
            session.execute(update(Idempotency).where(Idempotency.job_id == first).values(created_at=now() - age))
        assert (submitted(user, body, **key)["id"] == first) == same
    assert submitted(user, body, **key)["id"] != first


def test_concurrent_requests_with_the_same_idempotency_key_create_one_job(user: User) -> None:
    body, responses, gate = spec(user.teacher()), [], threading.Barrier(8)

    def submit() -> None:
        with httpx.Client(base_url=user.http.base_url, headers=user.http.headers, trust_env=False, timeout=30) as http:
            gate.wait()
            responses.append(http.post("/jobs", json=body, headers={"Idempotency-Key": "together"}))

    threads = [threading.Thread(target=submit) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    accepted = [response for response in responses if response.status_code == 202]
    assert accepted and len({response.json()["id"] for response in accepted}) == 1
    for response in responses:
        if response.status_code != 202:
            problem(response, 409, "in-flight")
            assert response.headers["retry-after"] == "1"
    with user.service.rows() as session:
        assert session.scalar(select(func.count()).select_from(Job).where(Job.key_id == user.key_id)) == 1
        kept = session.scalars(select(Idempotency).where(Idempotency.key_id == user.key_id)).one()
    assert kept.job_id == accepted[0].json()["id"]


def test_an_invalid_spec_does_not_use_up_its_idempotency_key(user: User) -> None:
    headers = {"Idempotency-Key": "k"}
    body = spec(user.teacher("rejected"))
    assert pointers(user.http.post("/jobs", json=body, headers=headers)) == ["/teacher"]
    assert user.http.post("/jobs", json=spec(user.teacher()), headers=headers).status_code == 202


def test_the_queued_jobs_of_a_key_are_limited(narrow: Service) -> None:
    with narrow.user() as user:
        body = spec(user.teacher(), training={"epochs": 1}, dataset=user.dataset())
        jobs = [submitted(user, body) for _ in range(2)]
        response = user.http.post("/jobs", json=body)
        problem(response, 429, "too-many")
        assert int(response.headers["retry-after"]) > 0
        user.change(jobs[0]["id"], status="running")
        submitted(user, body)


def test_a_job_shows_all_its_fields(user: User) -> None:
    job = user.job(
        "running", phase="distilling", stage="student", attempt=2, started_at=1_700_000_000.5,
        progress={"fraction": 0.5, "rate": 1.0}, created_at=1_700_000_000.0, cancel_requested_at=1_700_000_001.0,
        phases={"validating": {"started_at": 1_700_000_000.0, "ended_at": 1_700_000_001.0}, "distilling": {"started_at": 1_700_000_001.0, "ended_at": None}},
    )  # fmt: skip
    user.metrics(job, "loss", [3.0, 2.0, 1.0])
    user.metrics(job, "accuracy", [0.5, None])
    response = user.http.get(f"/jobs/{job}")
    shown = response.json()
    assert shown["created_at"] == "2023-11-14T22:13:20Z" and shown["started_at"] == "2023-11-14T22:13:20.500000Z"
    assert shown["phases"]["validating"]["ended_at"] == "2023-11-14T22:13:21Z"
    assert shown["phases"]["distilling"]["ended_at"] is None
    assert shown["metrics"] == {"loss": {"step": 3, "value": 1.0}, "accuracy": {"step": 2, "value": None}}
    assert shown["progress"]["fraction"] == 0.5
    assert shown["attempt"] == 2 and "cancel" in shown["links"] and "retry" not in shown["links"]
    assert response.headers["retry-after"]
    for link in ("events", "metrics", "previews", "artifacts"):
        assert user.http.get(shown["links"][link]).is_success


def test_a_job_shows_its_attempts_and_its_expected_end(user: User) -> None:
    lost = {"code": "worker_lost", "message": "the worker was lost", "hint": "", "fault": "service", "errors": []}
    job = user.job("running", attempt=25, progress={"fraction": 0.5, "at": 1_700_000_000.0, "seconds_left": 90.5})
    with user.service.rows() as session:
        for number in range(1, 26):
            ended = {"outcome": "lost", "error": lost, "ended_at": 1.0, "log_key": f"jobs/{job}/{number}/engine.log"}
            session.add(Attempt(job_id=job, number=number, worker_id="w", **(ended if number < 25 else {})))
    user.service.storage.put(f"jobs/{job}/24/engine.log", b"what it wrote\n")
    shown = user.http.get(f"/jobs/{job}").json()
    assert shown["expected_end_at"] == "2023-11-14T22:14:50.500000Z"
    assert [one["number"] for one in shown["attempts"]] == list(range(25, 5, -1))
    assert shown["attempts"][0]["outcome"] is None and shown["attempts"][0]["links"] == {}
    assert shown["attempts"][1]["error"] == lost
    log = user.http.get(shown["attempts"][1]["links"]["log"])
    assert log.text == "what it wrote\n" and log.headers["content-type"].startswith("text/plain")
    assert user.http.head(shown["attempts"][1]["links"]["log"]).headers["content-length"] == "14"
    for number, expected in ((25, "once it has ended"), (23, "Attempt 23 has no log"), (26, "no attempt 26")):
        assert expected in problem(user.http.get(f"/jobs/{job}/attempts/{number}/log"), 404)["detail"]
    user.change(job, status="succeeded")
    assert user.http.get(f"/jobs/{job}").json()["expected_end_at"] is None


def test_a_job_shows_the_newest_value_of_every_metric(user: User) -> None:
    job = user.job("running")
    for name in ("a", "b/c", "ä"):
        user.metrics(job, name, [float(at) for at in range(40)])
    user.metrics(user.job("running"), "other", [1.0])
    shown = user.http.get(f"/jobs/{job}").json()["metrics"]
    assert shown == {name: {"step": 40, "value": 39.0} for name in ("a", "b/c", "ä")}


def test_a_failed_job_shows_its_error(user: User) -> None:
    error = {"code": "diverged", "message": "The loss became infinite.", "hint": "Lower it.", "fault": "job"}
    errors = [{"pointer": "/training/learning_rate", "message": "too high"}]
    job = user.job("failed", error=error | {"errors": errors}, finished_at=1_700_000_000.0)
    response = user.http.get(f"/jobs/{job}")
    assert response.json()["error"] == error | {"errors": errors}
    assert "retry-after" not in response.headers


def test_the_queue_is_ordered_by_priority_and_age(user: User) -> None:
    low = user.job(ready=True, priority=-100)
    first, second = user.job(ready=True, priority=90), user.job(ready=True, priority=90)
    unready = user.job(priority=100)
    position = {job: user.http.get(f"/jobs/{job}").json()["queue_position"] for job in (low, first, second, unready)}
    assert position[first] + 1 == position[second] < position[low] and position[unready] is None
    for job in (low, first, second, unready):
        user.http.post(f"/jobs/{job}/cancel")


def test_an_unchanged_job_is_a_304(user: User) -> None:
    job = user.job("running")
    etag = user.http.get(f"/jobs/{job}").headers["etag"]
    for header in (etag, f'"x", W/{etag}', "*"):
        response = user.http.get(f"/jobs/{job}", headers={"If-None-Match": header})
        assert response.status_code == 304 and response.content == b"" and response.headers["etag"] == etag
    user.change(job, stage="b")
    assert user.http.get(f"/jobs/{job}", headers={"If-None-Match": etag}).json()["stage"] == "b"


def test_prefer_wait_delays_the_response_until_the_job_changes(user: User) -> None:
    job = user.job("running")
    etag = user.http.get(f"/jobs/{job}").headers["etag"]
    for headers in ({"If-None-Match": etag}, {}):
        timer = threading.Timer(0.5, user.change, (job,), {"stage": str(time.time())})
        timer.start()
        started = time.monotonic()
        response = user.http.get(f"/jobs/{job}", headers=headers | {"Prefer": "wait=25"})
        assert 0.3 < time.monotonic() - started < 15 and response.status_code == 200
        assert response.headers["preference-applied"] == "wait=25" and response.headers["etag"] != etag
        timer.join()
    etag = response.headers["etag"]
    started = time.monotonic()
    waited = user.http.get(f"/jobs/{job}", headers={"If-None-Match": etag, "Prefer": "wait=1"})
    assert waited.status_code == 304 and time.monotonic() - started >= 1
    assert "preference-applied" not in user.http.get(f"/jobs/{job}", headers={"Prefer": "wait=x"}).headers


def test_prefer_wait_does_not_delay_the_response_of_an_ended_job(user: User) -> None:
    job = user.job("succeeded")
    started = time.monotonic()
    assert user.http.get(f"/jobs/{job}", headers={"Prefer": "wait=30"}).json()["status"] == "succeeded"
    assert time.monotonic() - started < 10


def test_a_queued_job_is_cancelled_at_once(user: User) -> None:
    job = submitted(user, spec(user.teacher()))["id"]
    for _ in range(2):
        response = user.http.post(f"/jobs/{job}/cancel")
        assert response.status_code == 202 and response.json()["status"] == "cancelled"
    assert response.json()["finished_at"] and response.json()["reason"] is None
    assert [one.status for one in inspections(user, job)] == ["done"]
    events = user.http.get(f"/jobs/{job}/events").json()["data"]
    assert [(event["seq"], event["data"]["status"]) for event in events] == [(1, "queued"), (2, "cancelled")]


def test_the_cancellation_of_a_running_job_is_requested_once(user: User) -> None:
    job = user.job("running")
    first = user.http.post(f"/jobs/{job}/cancel").json()
    second = user.http.post(f"/jobs/{job}/cancel").json()
    assert first["status"] == "running" and first["cancel_requested_at"] == second["cancel_requested_at"] is not None
    assert first["version"] == second["version"]


@pytest.mark.parametrize("status", ["succeeded", "failed"])
def test_an_ended_job_cannot_be_cancelled(user: User, status: str) -> None:
    assert status in problem(user.http.post(f"/jobs/{user.job(status)}/cancel"), 409, "conflict")["detail"]


def test_a_concurrent_cancel_and_claim_have_one_outcome(user: User) -> None:
    for _ in range(5):
        job = user.job(ready=True)
        claimed: list[bool] = []

        def claim(job: str = job, claimed: list[bool] = claimed) -> None:
            with user.service.rows() as session:
                row = session.scalars(select(Job).where(Job.id == job).with_for_update()).one()
                if row.status == "queued" and row.cancel_requested_at is None:
                    row.status, row.version = "running", row.version + 1
                    claimed.append(True)

        worker = threading.Thread(target=claim)
        worker.start()
        response = user.http.post(f"/jobs/{job}/cancel").json()
        worker.join()
        assert response["cancel_requested_at"] is not None
        assert user.http.get(f"/jobs/{job}").json()["status"] == ("running" if claimed else "cancelled")


def test_an_ended_job_can_be_retried(user: User) -> None:
    old = submitted(user, spec(user.teacher(), name="mine"))["id"]
    problem(user.http.post(f"/jobs/{old}/retry"), 409, "conflict")
    user.http.post(f"/jobs/{old}/cancel")
    response = user.http.post(f"/jobs/{old}/retry", headers={"Idempotency-Key": "again"})
    assert response.status_code == 202
    new = response.json()
    assert new["retry_of"] == old and new["status"] == "queued" and new["name"] == "mine"
    assert user.http.post(f"/jobs/{old}/retry", headers={"Idempotency-Key": "again"}).json()["id"] == new["id"]
    assert user.http.get(f"/jobs/{old}").json()["status"] == "cancelled"
    assert len(inspections(user, new["id"])) == 1


def test_a_spec_that_is_no_longer_valid_cannot_be_retried(alone: User) -> None:
    old = alone.job("failed", spec={"student": {"network": "gone"}})
    assert pointers(alone.http.post(f"/jobs/{old}/retry")) == ["/student/network"]


def test_only_an_ended_job_can_be_deleted(user: User) -> None:
    job = user.job("running")
    problem(user.http.delete(f"/jobs/{job}"), 409, "conflict")
    user.change(job, status="failed")
    user.service.storage.put(f"jobs/{job}/1/log.txt", b"log")
    assert user.http.delete(f"/jobs/{job}").status_code == 204
    problem(user.http.get(f"/jobs/{job}"), 404)
    assert user.http.get("/jobs").json()["data"] == []
    assert list(user.service.storage.list(f"jobs/{job}")) == []


def test_lists_are_filtered_and_paged(user: User) -> None:
    made = [
        user.job(status, labels={"n": str(at)}) for at, status in enumerate(("queued", "running", "failed", "running"))
    ]

    def ids(**params: Any) -> list[str]:
        return [one["id"] for one in user.http.get("/jobs", params=params).json()["data"]]

    assert ids() == made[::-1]
    assert ids(status="running") == [made[3], made[1]]
    assert ids(status=["failed", "queued"]) == [made[2], made[0]]
    assert ids(label="n:1") == [made[1]]
    first = user.http.get("/jobs", params={"limit": 3}).json()
    assert [one["id"] for one in first["data"]] == made[:0:-1]
    assert ids(limit=3, cursor=first["next_cursor"]) == made[:1]
    assert "spec" not in first["data"][0]
    user.change(made[1], created_at=1_700_000_000.0)
    assert ids(created_before="2023-11-14T22:13:21Z") == [made[1]]
    assert ids(created_before="2023-11-14T22:13:20Z") == []
    assert ids(created_after="2023-11-14T22:13:21+00:00") == [made[3], made[2], made[0]]
    assert ids(created_after="2023-11-14T22:13:20Z", status="running") == [made[3], made[1]]


def test_head_is_a_get_without_a_body(user: User) -> None:
    job = user.job("running")
    for path, status in ((f"/jobs/{job}", 200), ("/jobs", 200), ("/jobs/x", 404), ("/catalogue", 200)):
        got, head = user.http.get(path), user.http.head(path)
        assert got.status_code == head.status_code == status and head.content == b""
        assert got.headers["content-type"] == head.headers["content-type"]
    etag = user.http.head(f"/jobs/{job}").headers["etag"]
    assert user.http.head(f"/jobs/{job}", headers={"If-None-Match": etag}).status_code == 304
    stream = user.http.head(f"/jobs/{job}/events", headers={"Accept": "text/event-stream"})
    assert stream.headers["content-type"].startswith("text/event-stream") and stream.content == b""
    assert user.http.head("/jobs:validate").status_code == 405
