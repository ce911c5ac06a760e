"""Parts of a job's page: the end of its log, and how long it will take."""

import re
import time
from typing import Any

import httpx
import pytest

from api.dashboard.shared_pages import FRESH_SECONDS
from api.jobs.estimates import Estimate, estimates
from models.records import Attempt, Event, Job, Preview
from tests.api.dashboard.browsers import Browser
from tests.api.service import User

SPEC: dict[str, Any] = {
    "teacher": None, "dataset": None, "student": {"network": "lenet5_half"}, "source": {"name": "dafl"},
    "objectives": [{"name": "kd", "weight": 0.9, "temperature": 4.0}],
    "training": {"steps": 100, "epochs": None, "batch_size": 64, "optimizer": "adam", "seed": 0},
}  # fmt: skip


def logged(user: User, text: bytes, ended: bool) -> str:
    """A job with an attempt that has written a log."""
    job = user.job("failed" if ended else "running", attempt=1)
    key = f"jobs/{job}/1/engine.log"
    user.service.storage.put(key, text)
    with user.service.rows() as session:
        session.add(Attempt(job_id=job, number=1, worker_id="w", log_key=key, ended_at=1.0 if ended else None))
    return job


def test_the_end_of_a_log_is_shown_and_grows_while_its_attempt_runs(visitor: Browser, owner: User) -> None:
    job = logged(owner, b"".join(b"line %d\n" % at for at in range(1000)), ended=False)
    assert f"/jobs/{job}/attempts/1/log-end" in visitor.get(f"/jobs/{job}").text
    part = visitor.get(f"/jobs/{job}/attempts/1/log-end").text
    assert "line 999" in part and "line 600\n" in part and "line 599\n" not in part and "The last 400 lines" in part
    assert 'hx-trigger="every 5s"' in part
    ended = visitor.get(f"/jobs/{logged(owner, b'one' + bytes([255]), ended=True)}/attempts/1/log-end").text
    assert "one\ufffd" in ended and "hx-get" not in ended and "The last" not in ended


def test_a_missing_log_is_said(visitor: Browser, owner: User) -> None:
    assert "has no attempt 7" in visitor.get(f"/jobs/{owner.job('running')}/attempts/7/log-end").text


def test_the_columns_of_pictures_are_explained_on_the_page_and_in_the_report(visitor: Browser, owner: User) -> None:
    job = owner.job("succeeded")
    for name in ("examples", "samples"):
        owner.blob(Preview, job, f"{name}-00000001.png", b"picture", step=1, content_type="image/png")
    for text in (visitor.get(f"/jobs/{job}").text, owner.http.get(f"/jobs/{job}/report.html").text):
        assert text.count("In each row: the image, the truth, the student&#39;s answer") == 1


def test_curves_of_the_whole_come_before_those_of_parts(visitor: Browser, owner: User) -> None:
    job = owner.job("running")
    for name in ("generator/loss", "kd/loss", "loss", "validation/accuracy"):
        owner.metrics(job, name, [1.0, 0.5])
    assert list(visitor.get(f"/jobs/{job}/curves").json()) == [
        "loss",
        "validation/accuracy",
        "generator/loss",
        "kd/loss",
    ]


def trained(user: User, seconds: float, whole: float, device: str | None = "cpu", **changes: Any) -> str:
    """A job that has succeeded after so many seconds, of which it trained for some."""
    resolved = SPEC | {"training": SPEC["training"] | changes.pop("training", {})} | changes.pop("resolved", {})
    phases = {"distilling": {"started_at": 1000.0, "ended_at": 1000.0 + seconds}}
    times = {"started_at": 998.0, "finished_at": 998.0 + whole}
    job = user.job("succeeded", resolved=resolved, phases=phases, **({"attempt": 1} | times | changes))
    if device:
        with user.service.rows() as session:
            data = {"device": device, "versions": {}}
            session.add(Event(job_id=job, seq=2, attempt=1, type="log", message="the engine has started", data=data))
    return job


def expected(user: User, **training: Any) -> list[Estimate]:
    with user.service.rows() as session:
        return estimates(session, user.key_id, SPEC | {"training": SPEC["training"] | training})


def test_estimates_scale_the_training_of_earlier_jobs_and_not_the_rest(owner: User) -> None:
    assert expected(owner) == []
    for seconds in (10.0, 20.0, 60.0):
        trained(owner, seconds, seconds + 5.0)
    trained(owner, 4.0, 9.0, "cuda:1", training={"steps": 50, "seed": 9})
    assert expected(owner) == [Estimate("cpu", 25.0, 3), Estimate("cuda", 13.0, 1)]
    assert expected(owner, steps=200, seed=5) == [Estimate("cpu", 45.0, 3), Estimate("cuda", 21.0, 1)]


@pytest.mark.parametrize(
    "other",
    [
        {"resolved": {"teacher": "tch_1"}}, {"resolved": {"objectives": [{"name": "dkd"}]}}, {"training": {"batch_size": 1}},
        {"training": {"steps": None, "epochs": 3}}, {"attempt": 2}, {"stopped_early": "time_limit"}, {"device": None},
        {"resolved": {"student": {"network": "lenet5"}}},
    ],
)  # fmt: skip
def test_other_jobs_do_not_count(owner: User, other: dict[str, Any]) -> None:
    trained(owner, 10.0, 15.0, **other)
    assert expected(owner) == []


def test_the_page_of_a_waiting_job_shows_the_estimate(visitor: Browser, owner: User) -> None:
    trained(owner, 60.0, 65.0)
    waiting, running = owner.job("queued", resolved=SPEC), owner.job("running", resolved=SPEC)
    for job in (waiting, running):
        assert "Earlier jobs like it took about" in visitor.get(f"/jobs/{job}/status").text
    with owner.service.rows() as session:
        session.get_one(Job, running).progress = {"at": 1.0, "seconds_left": 5.0, "fraction": 0.5}
    assert "Earlier jobs" not in visitor.get(f"/jobs/{running}").text


def test_the_form_shows_the_estimate(visitor: Browser, owner: User) -> None:
    fields = {"/teacher": owner.teacher(), "/student/network": "lenet5_half", "/training/steps": "100"}
    fields |= {"/source/name": "dafl", "/objectives/0/name": "kd"}
    assert "About" not in visitor.post("/jobs/new/validate", fields).text
    made = visitor.post("/jobs/new", fields)
    job = owner.http.get(made.headers["location"]).json()
    trained(owner, 60.0, 65.0, resolved=job["resolved"])
    assert (
        "1 earlier job with this teacher" in visitor.post("/jobs/new/validate", fields | {"/training/seed": "3"}).text
    )


@pytest.mark.slow
def test_the_status_of_a_running_job_costs_one_statement(visitor: Browser, owner: User) -> None:
    progress = {"fraction": 0.1, "step": 1, "steps": 10, "at": 1.0, "seconds_left": 5.0}
    job = owner.job("running", progress=progress)

    def polled() -> str:
        time.sleep(FRESH_SECONDS)
        before = queries(owner)
        text = visitor.get(f"/jobs/{job}/status").text
        assert queries(owner) - before <= 4  # SQLite counts BEGIN; the session may be read on its own
        return text

    queries(owner)  # fills the caches of the metrics themselves
    first = polled()
    assert "step 1 of 10" in first and polled() == first
    owner.change(job, progress=progress | {"step": 2})
    assert "step 2 of 10" in polled()


def queries(user: User) -> float:
    """Statements that the service has sent to the database."""
    page = httpx.get(f"{user.service.url}/metrics", trust_env=False).text
    found = re.search(r"^distillery_database_queries_total (\S+)", page, re.MULTILINE)
    assert found
    return float(found[1])
