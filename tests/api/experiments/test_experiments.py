"""Experiments over HTTP."""

import threading
import time
from typing import Any

import httpx
import pytest
from sqlalchemy import select

from models.records import Event, Experiment, Job
from tests.api.service import Service, User, pointers, problem

SUMMARY = {"accuracy": 0.9, "main_metric": {"name": "accuracy", "student": 0.9}, "bytes": 1000, "notes": ["n"]}


def spec(user: User, **values: Any) -> dict[str, Any]:
    base = {"teacher": user.teacher(), "student": {"network": "lenet5_half"}, "source": {"name": "dafl"}}
    grid = {"training.steps": {"short": 10, "long": 20}, "training.seed": [0, 1, 2]}
    return {"name": "lengths", "labels": {"team": "vision"}, "base": base, "grid": grid} | values


def submit(user: User, body: dict[str, Any], **headers: str) -> httpx.Response:
    return user.http.post("/experiments", json=body, headers=headers)


def finish(user: User, job_id: str, accuracy: float) -> None:
    """End a job as a worker does."""
    main = {"name": "accuracy", "student": accuracy}
    summary = SUMMARY | {"accuracy": accuracy, "main_metric": main}
    with user.service.rows() as session:
        job = session.get_one(Job, job_id)
        job.event_seq += 2
        data: dict[str, Any] = {"summary": summary}
        session.add(Event(job_id=job_id, seq=job.event_seq - 1, attempt=1, type="log", message="the engine has finished", data=data))  # fmt: skip
        session.add(Event(job_id=job_id, seq=job.event_seq, attempt=1, type="status", message="succeeded"))
        job.status, job.version = "succeeded", job.version + 1


def test_one_request_queues_all_jobs(user: User) -> None:
    response = submit(user, spec(user))
    assert response.status_code == 202
    experiment = response.json()
    assert response.headers["Location"] == experiment["links"]["self"]
    assert experiment["counts"] == {"queued": 6} and experiment["status"] == "running"
    assert [(one["name"], [job["seed"] for job in one["jobs"]]) for one in experiment["variants"]] == [
        ("short", [0, 1, 2]), ("long", [0, 1, 2]),
    ]  # fmt: skip
    jobs = user.http.get(f"/experiments/{experiment['id']}/jobs").json()["data"]
    assert {job["name"] for job in jobs} >= {"lengths: short, seed 0", "lengths: long, seed 2"}
    assert {job["experiment_id"] for job in jobs} == {experiment["id"]}
    assert all(job["labels"] == {"team": "vision"} for job in jobs)
    one = user.http.get(f"/jobs/{jobs[0]['id']}").json()
    assert one["variant"] == "long" and one["resolved"]["training"]["seed"] == 2
    [listed] = user.http.get("/experiments", params={"label": "team:vision"}).json()["data"]
    assert listed["id"] == experiment["id"] and "variants" not in listed
    assert user.http.get("/experiments", params={"label": "team:other"}).json()["data"] == []


def test_nothing_is_queued_if_one_job_is_wrong(user: User) -> None:
    body = spec(user, grid={"training.steps": [10, 0], "student.network": ["lenet5_half", "nothing"]})
    assert set(pointers(submit(user, body))) == {"/grid/training.steps/1", "/grid/student.network/1"}
    wrong_input = spec(user)
    wrong_input["base"]["dataset"] = "dts_missing"
    assert pointers(submit(user, wrong_input)) == ["/base/dataset"]
    assert user.http.get("/jobs").json()["data"] == user.http.get("/experiments").json()["data"] == []
    with user.service.rows() as session:
        assert session.scalar(select(Experiment.id).where(Experiment.key_id == user.key_id)) is None


def test_a_repeated_request_returns_the_same_experiment(user: User) -> None:
    body = spec(user)
    first = submit(user, body, **{"Idempotency-Key": "one"}).json()
    again = submit(user, body, **{"Idempotency-Key": "one"}).json()
    assert again["id"] == first["id"] and again["counts"] == {"queued": 6}
    assert pointers(submit(user, body | {"name": "other"}, **{"Idempotency-Key": "one"})) == ["Idempotency-Key"]
    assert submit(user, body).json()["id"] != first["id"]


def test_more_jobs_than_the_key_may_queue_are_refused_as_a_whole(narrow: Service) -> None:
    with narrow.user() as user:
        detail = problem(submit(user, spec(user)), 429)["detail"]
        assert "6 more are too many" in detail
        assert user.http.get("/jobs").json()["data"] == []


def test_cancel_and_delete(user: User) -> None:
    identifier = submit(user, spec(user)).json()["id"]
    problem(user.http.delete(f"/experiments/{identifier}"), 409)
    cancelled = user.http.post(f"/experiments/{identifier}/cancel").json()
    assert cancelled["counts"] == {"cancelled": 6} and cancelled["status"] == "ended"
    assert user.http.post(f"/experiments/{identifier}/cancel").json()["counts"] == {"cancelled": 6}
    assert user.http.delete(f"/experiments/{identifier}").status_code == 204
    problem(user.http.get(f"/experiments/{identifier}"), 404)
    assert user.http.get("/jobs").json()["data"] == user.http.get("/experiments").json()["data"] == []


def test_following_ends_when_the_last_job_ends(user: User) -> None:
    body = spec(user, grid={"training.seed": [0]})
    experiment = submit(user, body).json()
    [job] = experiment["variants"][0]["jobs"]
    tag = user.http.get(f"/experiments/{experiment['id']}").headers["ETag"]
    timer = threading.Timer(0.3, finish, (user, job["id"], 0.5))
    timer.start()
    began = time.monotonic()
    headers = {"Prefer": "wait=50", "If-None-Match": tag}
    found = user.http.get(f"/experiments/{experiment['id']}", headers=headers, timeout=60)
    timer.join()
    assert found.json()["status"] == "ended" and found.json()["counts"] == {"succeeded": 1}
    assert time.monotonic() - began < 45, "the response came at the end of the wait, not at the change"


@pytest.fixture
def measured(user: User) -> dict[str, Any]:
    """An experiment whose jobs have ended, but for one."""
    experiment: dict[str, Any] = submit(user, spec(user)).json()
    values = {"short": [0.5, 0.6, 0.7], "long": [0.7, 0.9]}
    for variant in experiment["variants"]:
        for job, accuracy in zip(variant["jobs"], values[variant["name"]], strict=False):
            finish(user, job["id"], accuracy)
    return experiment


def test_the_table_compares_variants_paired_by_seed(user: User, measured: dict[str, Any]) -> None:
    path = f"/experiments/{measured['id']}/table"
    table = user.http.get(path).json()
    assert (table["metric"], table["best_is"], table["best"], table["baseline"]) == (
        "accuracy",
        "highest",
        "long",
        "short",
    )
    short, long = table["rows"]
    assert short["mean"] == pytest.approx(0.6) and short["spread"] == pytest.approx(0.1) and short["difference"] is None
    assert long["values"] == {"0": 0.7, "1": 0.9} and long["unfinished"] == 1 and long["n"] == 2
    assert long["difference"] == pytest.approx({"mean": 0.25, "half": 12.7062 * 0.05, "n": 2}, rel=1e-4)
    assert user.http.get(path, params={"metric": "bytes"}).json()["best_is"] == "lowest"
    assert user.http.get(path, params={"best": "lowest", "baseline": "long"}).json()["best"] == "short"
    assert pointers(user.http.get(path, params={"metric": "nothing"})) == ["metric"]
    assert pointers(user.http.get(path, params={"baseline": "nothing"})) == ["baseline"]


def test_the_table_as_csv_and_markdown(user: User, measured: dict[str, Any]) -> None:
    path = f"/experiments/{measured['id']}/table"
    csv = user.http.get(path, params={"format": "csv"})
    assert csv.headers["content-type"] == "text/csv; charset=utf-8"
    assert csv.text.splitlines()[1].startswith("accuracy,short,3,0.6,0.0999")
    markdown = user.http.get(path, params={"format": "markdown"})
    assert markdown.headers["content-type"] == "text/markdown; charset=utf-8"
    assert "| **long** | 0.8 | 0.14142 | 2 (1 not ended) | +0.25 ± 0.635 |" in markdown.text


def test_names_are_harmless_in_csv_and_markdown(user: User) -> None:
    variants = [{"name": '=HYPERLINK("http://x")'}, {"name": "<script>|x", "changes": {"training.steps": 11}}]
    body = spec(user, variants=variants, grid={})
    path = f"/experiments/{submit(user, body).json()['id']}/table"
    assert ",\"'=HYPERLINK" in user.http.get(path, params={"format": "csv"}).text
    markdown = user.http.get(path, params={"format": "markdown"}).text
    assert r"\<script\>\|x" in markdown and "<script" not in markdown.replace(r"\<script", "")
