"""Webhooks over HTTP: the secret, the deliveries, and delivering a message again."""

import base64
from typing import Any

import pytest
from sqlalchemy import select

from models.records import WebhookDelivery, WebhookSecret
from tests.api.service import User, pointers, problem

URL = "https://example.org/hook"
HOOK = {"url": URL, "events": ["job.cancelled"]}


def spec(user: User, **more: Any) -> dict[str, Any]:
    return {"teacher": user.teacher(), "student": {"network": "lenet5_half"}, **more}


def test_a_secret_is_created_shown_once_and_rotated(user: User, other: User) -> None:
    problem(user.http.get("/webhooks/secret"), 404)
    first = user.http.post("/webhooks/secret")
    assert first.status_code == 201 and first.headers["cache-control"] == "no-store"
    secret = first.json()["secret"]
    assert secret.startswith("whsec_") and len(base64.b64decode(secret.removeprefix("whsec_"), validate=True)) == 32
    assert first.json()["previous_until"] is None
    shown = user.http.get("/webhooks/secret").json()
    assert shown == {"created_at": first.json()["created_at"], "previous_until": None}
    second = user.http.post("/webhooks/secret").json()
    assert second["secret"] != secret and second["previous_until"] is not None
    assert user.http.get("/webhooks/secret").json()["previous_until"] == second["previous_until"]
    problem(other.http.get("/webhooks/secret"), 404)
    with user.service.rows() as session:
        mine = session.scalars(select(WebhookSecret.secret).where(WebhookSecret.key_id == user.key_id)).all()
    assert sorted(mine) == sorted([secret, second["secret"]])


def test_a_job_shows_its_webhook(alone: User) -> None:
    short = alone.http.post("/jobs", json=spec(alone, webhook=URL)).json()
    assert short["spec"]["webhook"] == URL
    assert short["resolved"]["webhook"] == {"url": URL, "events": ["job.succeeded", "job.failed", "job.cancelled"]}
    assert alone.http.post("/jobs", json=spec(alone)).json()["resolved"]["webhook"] is None
    refused = alone.http.post("/jobs", json=spec(alone, webhook="https://[::ffff:169.254.169.254]/"))
    assert pointers(refused) == ["/webhook/url"]
    assert pointers(alone.http.post("/jobs:validate", json=spec(alone, webhook={"url": 1}))) == ["/webhook/url"]


def test_a_cancelled_job_has_a_delivery_at_once(user: User, other: User) -> None:
    job = user.http.post("/jobs", json=spec(user, webhook=HOOK, labels={"team": "vision"})).json()["id"]
    assert user.http.get(f"/jobs/{job}/webhook-deliveries").json() == {"data": [], "next_cursor": None}
    ended = user.http.post(f"/jobs/{job}/cancel").json()
    user.http.post(f"/jobs/{job}/cancel")
    [shown] = user.http.get(f"/jobs/{job}/webhook-deliveries").json()["data"]
    assert (shown["type"], shown["url"], shown["status"], shown["tries"]) == ("job.cancelled", URL, "pending", [])
    assert shown["next_try_at"] is not None and shown["finished_at"] is None and shown["links"] == {}
    data = shown["body"]["data"]
    assert data == {name: ended[name] for name in data} and data["labels"] == {"team": "vision"}
    assert {"id", "status", "version", "error", "finished_at"} <= set(data) and "spec" not in data
    problem(other.http.get(f"/jobs/{job}/webhook-deliveries"), 404)


@pytest.mark.parametrize("status", ["delivered", "failed", "disabled"])
def test_a_finished_delivery_can_be_delivered_again(user: User, status: str) -> None:
    job = user.http.post("/jobs", json=spec(user, webhook=HOOK)).json()["id"]
    user.http.post(f"/jobs/{job}/cancel")
    [pending] = user.http.get(f"/jobs/{job}/webhook-deliveries").json()["data"]
    again = f"/jobs/{job}/webhook-deliveries/{pending['id']}/redeliver"
    problem(user.http.post(again), 409)
    with user.service.rows() as session:
        row = session.get_one(WebhookDelivery, pending["id"])
        row.status, row.finished_at, row.pauses = status, 1.0, 9
    [over] = user.http.get(f"/jobs/{job}/webhook-deliveries").json()["data"]
    assert over["next_try_at"] is None and over["links"]["redeliver"].endswith(again)
    redelivered = user.http.post(again)
    assert redelivered.status_code == 202 and (redelivered.json()["id"], redelivered.json()["status"]) == (
        pending["id"],
        "pending",
    )
    with user.service.rows() as session:
        row = session.get_one(WebhookDelivery, pending["id"])
        assert (row.pauses, row.finished_at) == (0, None) and row.due_at > 1.0
    problem(user.http.post(f"/jobs/{job}/webhook-deliveries/msg_x/redeliver"), 404)


def test_a_deleted_job_has_no_deliveries(alone: User) -> None:
    job = alone.http.post("/jobs", json=spec(alone, webhook=HOOK)).json()["id"]
    alone.http.post(f"/jobs/{job}/cancel")
    assert alone.http.delete(f"/jobs/{job}").status_code == 204
    with alone.service.rows() as session:
        assert session.scalars(select(WebhookDelivery).where(WebhookDelivery.job_id == job)).all() == []
