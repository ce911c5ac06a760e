"""Polls: what clients share, and what they must never share."""

from concurrent.futures import ThreadPoolExecutor
from typing import Any

import httpx
import pytest

from api.jobs.shared_reads import Bodies
from models.records import Attempt, Worker
from models.records.columns import new_id
from tests.api.service import User, problem


def test_the_job_of_another_key_does_not_exist_even_if_it_was_just_read(user: User, other: User) -> None:
    job = user.job("running")
    for _ in range(2):
        shown = user.http.get(f"/jobs/{job}")
        assert shown.status_code == 200
        problem(other.http.get(f"/jobs/{job}"), 404)
        problem(other.http.get(f"/jobs/{job}", headers={"If-None-Match": shown.headers["ETag"]}), 404)
        problem(other.http.get(f"/jobs/{job}", headers={"If-None-Match": "*"}), 404)
    without = user.service.user(scopes=["jobs:write"])
    with without:
        problem(without.http.get(f"/jobs/{job}"), 403)


def test_a_deleted_job_does_not_exist_at_once(user: User) -> None:
    job = user.job("cancelled")
    tag = user.http.get(f"/jobs/{job}").headers["ETag"]
    user.http.delete(f"/jobs/{job}").raise_for_status()
    problem(user.http.get(f"/jobs/{job}", headers={"If-None-Match": tag}), 404)


def test_an_answer_is_never_older_than_its_request(user: User) -> None:
    job = user.job("running")
    for number in range(30):
        user.change(job, reason=f"reason {number}")
        assert user.http.get(f"/jobs/{job}").json()["reason"] == f"reason {number}"


def changes(user: User, job: str) -> Any:
    """Changes of a job or of what its body says of the queue and of workers."""
    yield lambda: user.change(job, reason="waits")
    yield lambda: user.events(job, 1)
    yield lambda: user.metrics(job, "loss", [1.0])
    yield lambda: None
    yield lambda: _add(user, Worker(id=new_id("wrk"), kind="distill", host="here", process=1, about={}))
    yield lambda: user.change(job, ready=True)
    yield lambda: user.change(job, status="running", attempt=1)
    yield lambda: None
    yield lambda: user.change(job, status="succeeded")


def _add(user: User, row: Any) -> None:
    with user.service.rows() as session:
        session.add(row)


def test_the_tag_changes_when_and_only_when_the_body_changes(user: User) -> None:
    job = user.job("queued")
    last = user.http.get(f"/jobs/{job}")
    for change in changes(user, job):
        change()
        now = user.http.get(f"/jobs/{job}")
        assert (now.headers["ETag"] == last.headers["ETag"]) == (now.content == last.content)
        conditional = user.http.get(f"/jobs/{job}", headers={"If-None-Match": last.headers["ETag"]})
        assert conditional.status_code == (304 if now.content == last.content else 200)
        assert conditional.content == (b"" if now.content == last.content else now.content)
        last = now


def test_both_ways_of_a_poll_give_the_same_answer(user: User) -> None:
    for status in ("queued", "running", "succeeded"):
        job = user.job(status)
        short, long = (user.http.get(f"/jobs/{job}", headers=given) for given in ({}, {"Prefer": "handling=lenient"}))
        assert short.content == long.content
        for name in ("ETag", "Cache-Control", "Content-Type", "Retry-After"):
            assert short.headers.get(name) == long.headers.get(name), name
        assert user.http.head(f"/jobs/{job}").headers["ETag"] == short.headers["ETag"]


def test_links_have_the_host_that_the_client_used(user: User) -> None:
    job = user.job("running")
    for host in ("one.example", "two.example", "one.example"):
        links = user.http.get(f"/jobs/{job}", headers={"Host": host}).json()["links"]
        assert links["self"] == f"http://{host}/v1/jobs/{job}"


def test_many_clients_cost_the_database_little(user: User) -> None:
    jobs = [user.job("running") for _ in range(20)]
    user.http.get("/jobs")
    before = _statements(user)

    def poll(number: int) -> int:
        with httpx.Client(base_url=f"{user.service.url}/v1", headers=user.http.headers, trust_env=False) as client:
            return sum(client.get(f"/jobs/{jobs[(number + at) % 20]}").status_code == 200 for at in range(20))

    with ThreadPoolExecutor(16) as pool:
        assert sum(pool.map(poll, range(16))) == 320
    assert _statements(user) - before < 320  # one by one, they were at least four each


def _statements(user: User) -> float:
    lines = httpx.get(f"{user.service.url}/metrics", trust_env=False).text.splitlines()
    return next(float(line.split()[1]) for line in lines if line.startswith("distillery_database_queries_total"))


def test_a_long_poll_without_a_tag_ends_with_the_body(user: User) -> None:
    shown = user.http.get(f"/jobs/{user.job('running')}", headers={"Prefer": "wait=1"})
    assert shown.status_code == 200 and shown.json()["status"] == "running"


def test_kept_bodies_are_bounded() -> None:
    bodies = Bodies(most_bytes=10)
    for number in range(4):
        bodies.keep(f"job_{number}", "", "tag", b"1234")
    assert [bodies.get(f"job_{number}", "", "tag") for number in range(4)] == [None, None, b"1234", b"1234"]
    bodies.keep("job_3", "", "new", b"12")
    assert bodies.get("job_3", "", "tag") is None and bodies.get("job_3", "", "new") == b"12"


@pytest.mark.parametrize("attempts", [1, 25])
def test_the_newest_attempts_are_shown(user: User, attempts: int) -> None:
    job = user.job("running", attempt=attempts)
    for number in range(1, attempts + 1):
        _add(user, Attempt(job_id=job, number=number, worker_id="wrk_1"))
    shown = [one["number"] for one in user.http.get(f"/jobs/{job}").json()["attempts"]]
    assert shown == list(range(attempts, 0, -1))[:20]
