"""Submissions that arrive together share a transaction, and nothing else."""

from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import httpx

from tests.api.service import User, pointers

CLIENTS = 16


def together(user: User, bodies: list[dict[str, Any]], *headers: dict[str, str]) -> list[httpx.Response]:
    """Submit from several clients at once; the responses in the order of the bodies."""

    def send(number: int) -> httpx.Response:
        given = dict(user.http.headers) | (headers[number % len(headers)] if headers else {})
        with httpx.Client(base_url=f"{user.service.url}/v1", headers=given, timeout=60, trust_env=False) as client:
            return client.post("/jobs", json=bodies[number])

    with ThreadPoolExecutor(CLIENTS) as pool:
        return list(pool.map(send, range(len(bodies))))


def spec(user: User, **values: Any) -> dict[str, Any]:
    return {"teacher": user.teacher(), "student": {"network": "lenet5_half"}} | values


def test_each_request_gets_its_own_job(user: User) -> None:
    bodies = [spec(user, name=f"job {number}") for number in range(3 * CLIENTS)]
    responses = together(user, bodies)
    assert [response.status_code for response in responses] == [202] * len(bodies)
    made = [response.json() for response in responses]
    assert [one["name"] for one in made] == [body["name"] for body in bodies]
    assert [one["spec"] for one in made] == bodies and len({one["id"] for one in made}) == len(bodies)
    for response, one in zip(responses, made, strict=True):
        assert response.headers["Location"] == one["links"]["self"]
        assert one["request_id"] == response.headers["X-Request-ID"]
        shown = user.http.get(f"/jobs/{one['id']}")
        assert shown.json() == one
        events = user.http.get(f"/jobs/{one['id']}/events").json()["data"]
        assert [(event["seq"], event["message"]) for event in events] == [(1, "queued")]


def test_a_spec_that_cannot_work_spoils_no_other(user: User, other: User) -> None:
    good, foreign = spec(user), spec(other)
    responses = together(user, [good, foreign] * CLIENTS)
    assert [response.status_code for response in responses] == [202, 422] * CLIENTS
    assert pointers(responses[1]) == ["/teacher"]


def test_a_limit_of_queued_jobs_is_kept_exactly(user: User) -> None:
    with user.service.user(limits={"queued_jobs": 5}) as limited:
        body = spec(limited)
        statuses = Counter(response.status_code for response in together(limited, [body] * 2 * CLIENTS))
        assert statuses == {202: 5, 429: 2 * CLIENTS - 5}


def test_one_idempotency_key_makes_one_job(user: User) -> None:
    body = spec(user)
    responses = together(user, [body] * 2 * CLIENTS, {"Idempotency-Key": "one"}, {"Idempotency-Key": "two"})
    assert {response.status_code for response in responses} <= {202, 409}
    for first in (0, 1):
        ids = {one.json()["id"] for one in responses[first::2] if one.status_code == 202}
        assert len(ids) == 1
    assert len(user.http.get("/jobs").json()["data"]) == 2


def test_clients_see_their_own_host(user: User) -> None:
    hosts = [{"Host": "one.example"}, {"Host": "two.example"}]
    for number, response in enumerate(together(user, [spec(user)] * CLIENTS, *hosts)):
        assert response.headers["Location"].startswith(f"http://{hosts[number % 2]['Host']}/v1/jobs/job_")
