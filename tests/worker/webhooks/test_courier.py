"""Webhooks from the change of a job to a receiver that verifies the signature, on both databases."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from standardwebhooks.webhooks import WebhookVerificationError

from models.database import now, transaction
from models.records import Job, WebhookDelivery, WebhookSecret
from models.status import JobStatus
from models.webhooks import signing_secrets
from tests.receiver import Authority, Receiver
from tests.worker.attempt.test_job import eventually
from tests.worker.scenes import change, claimed, events, get, make_job, make_key, rows, run_next
from worker.ledger import ends
from worker.webhooks import courier, outward
from worker.webhooks.courier import Courier, deliver
from worker.webhooks.deliveries import DueDelivery, claim

ROOT = Path(__file__).parents[3]
ALL = ["job.running", "job.succeeded", "job.failed", "job.cancelled"]


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("authority"))


@pytest.fixture
def receiver(authority: Authority) -> Iterator[Receiver]:
    with authority.receiver() as found:
        yield found


@pytest.fixture
def open_to(authority: Authority, configure: Callable[..., Any]) -> Callable[..., Any]:
    """Settings that allow deliveries to this machine, at the ports of these receivers."""

    def opened(*receivers: Receiver, **values: Any) -> Any:
        ports = ",".join(str(receiver.port) for receiver in receivers)
        given = {"webhook_allow": "127.0.0.0/8", "webhook_ports": ports, "webhook_ca_file": authority.file}
        return configure(**given | {"webhook_retry_seconds": "0.1,0.1,0.1", "webhook_seconds": 5} | values)

    return opened


def telling(url: str, events: list[str] | None = None, key_id: str | None = None, **script: Any) -> str:
    """A job with a webhook."""
    job_id = make_job(key_id=key_id, **script)
    hook = {"url": url, "events": events or ALL[1:]}
    change(Job, job_id, resolved=get(Job, job_id).resolved | {"webhook": hook})
    return job_id


def finished(url: str, key_id: str | None = None) -> str:
    """A job with a webhook that has just failed, so a delivery is pending."""
    job_id = telling(url, key_id=key_id)
    with transaction() as session:
        ends.finish(session, job_id, JobStatus.FAILED, "it broke", error=ends.error("broken", "it broke", "", "job"))
    return job_id


def secret_of(job_id: str) -> str:
    with transaction() as session:
        return signing_secrets.signing(session, get(Job, job_id).key_id)[0]


def next_delivery() -> DueDelivery:
    found: list[DueDelivery] = []
    eventually(lambda: bool(found) or found.extend(filter(None, [claim([], [])])), 20.0)
    return found[0]


def test_every_change_of_status_is_delivered_and_signed(both: None, receiver: Receiver, open_to: Any) -> None:
    open_to(receiver)
    job_id = telling(receiver.url, ALL, steps=2, print_spec=True)
    run_next()
    [spec] = [json.loads(event.message) for event in events(job_id, "log") if event.message.startswith("{")]
    assert spec["student"] and "webhook" not in spec  # the engine gets no webhook
    for _ in range(2):
        deliver(next_delivery())
    assert claim([], []) is None
    running, succeeded = (one.verified(secret_of(job_id)) for one in receiver.received)
    assert (running["type"], succeeded["type"]) == ("job.running", "job.succeeded")
    told, job = succeeded["data"], get(Job, job_id)
    assert (told["id"], told["status"], told["version"], told["attempt"]) == (job_id, "succeeded", job.version, 1)
    assert succeeded["timestamp"].endswith("Z") and told["finished_at"] is not None and told["error"] is None
    assert "finished_at" in running["data"] and running["data"]["finished_at"] is None
    assert [row.status for row in rows(WebhookDelivery)] == ["delivered"] * 2
    assert receiver.received[0].path == "/hook?a=b"
    assert receiver.received[0].headers["content-type"] == "application/json"
    with pytest.raises(WebhookVerificationError):
        receiver.received[0].verified("whsec_" + "A" * 44)


def test_only_requested_events_that_were_committed_are_delivered(both: None) -> None:
    job_id = telling("https://example.org/", ["job.succeeded"])
    held = claimed()
    assert rows(WebhookDelivery) == []
    with pytest.raises(RuntimeError), transaction() as session:
        assert ends.finish(session, job_id, JobStatus.SUCCEEDED, "done", *ends.held_by(held.attempt))
        assert len(session.query(WebhookDelivery).all()) == 1
        raise RuntimeError("the transaction goes wrong")
    assert rows(WebhookDelivery) == []
    with transaction() as session:
        assert ends.finish(session, job_id, JobStatus.SUCCEEDED, "done", *ends.held_by(held.attempt))
        assert not ends.finish(session, job_id, JobStatus.FAILED, "again")
    assert [row.type for row in rows(WebhookDelivery)] == ["job.succeeded"]


def test_a_delivery_is_retried_with_the_same_id_until_it_succeeds(both: None, receiver: Receiver, open_to: Any) -> None:
    open_to(receiver, webhook_seconds=0.5)
    receiver.script = [500, 301, 5.0, 200]
    job_id = finished(receiver.url)
    began = time.monotonic()
    assert [deliver(next_delivery()) for _ in range(4)] == ["pending"] * 3 + ["delivered"]
    assert time.monotonic() - began >= 0.3 + 0.5
    assert {(one.id, one.path, one.body) for one in receiver.received} == {
        (receiver.received[0].id, "/hook?a=b", receiver.received[0].body)
    }
    for one in receiver.received:
        assert one.verified(secret_of(job_id))["data"]["error"]["code"] == "broken"
    (row,) = rows(WebhookDelivery)
    assert [(one["status_code"], one["error"]) for one in row.tries] == [
        (500, None), (301, None), (None, "timeout"), (200, None),
    ]  # fmt: skip
    assert (row.status, row.attempt, row.id) == ("delivered", 4, receiver.received[0].id)


def test_a_delivery_fails_after_the_last_retry(embedded: None, receiver: Receiver, open_to: Any) -> None:
    open_to(receiver, webhook_retry_seconds="0.1")
    receiver.otherwise = 503
    finished(receiver.url)
    assert [deliver(next_delivery()) for _ in range(2)] == ["pending", "failed"]
    time.sleep(0.2)
    assert claim([], []) is None


def test_a_response_of_410_disables_the_webhook_of_the_job(both: None, receiver: Receiver, open_to: Any) -> None:
    open_to(receiver)
    receiver.otherwise = 410
    job_id, other = telling(receiver.url, ALL), telling(receiver.url, ALL)
    claimed(), claimed()
    deliveries = [next_delivery(), next_delivery()]
    assert [deliver(delivery) for delivery in deliveries if get(WebhookDelivery, delivery.id).job_id == job_id] == [
        "disabled"
    ]
    with transaction() as session:
        assert ends.finish(session, job_id, JobStatus.FAILED, "it broke")
        assert ends.finish(session, other, JobStatus.FAILED, "it broke")
    assert [row.status for row in rows(WebhookDelivery, job_id=job_id)] == ["disabled"]
    assert len(rows(WebhookDelivery, job_id=other)) == 2


def test_after_a_rotation_both_secrets_sign_deliveries(both: None, receiver: Receiver, open_to: Any) -> None:
    open_to(receiver)
    job_id = finished(receiver.url)
    old = secret_of(job_id)
    with transaction() as session:
        rotated = signing_secrets.rotate(session, get(Job, job_id).key_id)
    assert rotated.previous_until is not None
    deliver(next_delivery())
    (one,) = receiver.received
    assert one.verified(old) == one.verified(rotated.record.secret) == json.loads(one.body)
    with transaction() as session:
        for _ in range(5):
            signing_secrets.rotate(session, get(Job, job_id).key_id)
        assert len(signing_secrets.current(session, get(Job, job_id).key_id)) == signing_secrets.MOST_VALID


def test_concurrent_couriers_send_every_delivery_once(both: None) -> None:
    key_id = make_key()
    for _ in range(12):
        finished("https://example.org/", key_id)
    with ThreadPoolExecutor(6) as pool:
        taken = [delivery.id for delivery in pool.map(lambda _: claim([], []), range(24)) if delivery is not None]
    assert len(taken) == len(set(taken)) == 12
    assert len(rows(WebhookSecret, key_id=key_id)) == 1


def test_a_slow_receiver_does_not_delay_others(
    embedded: None, authority: Authority, receiver: Receiver, open_to: Any, monkeypatch: Any
) -> None:
    monkeypatch.setattr(courier, "FAREWELL_SECONDS", 0.2)
    with authority.receiver() as slow:
        open_to(slow, receiver)
        slow.otherwise = 60.0
        for _ in range(10):
            finished(slow.url)
        quick = [finished(receiver.url) for _ in range(4)]
        with Courier():
            eventually(lambda: len(receiver.received) == len(quick), 20.0)
            eventually(
                lambda: all(row.status == "delivered" for job in quick for row in rows(WebhookDelivery, job_id=job)),
                20.0,
            )
        assert slow.most_at_once == courier.AT_ONCE_TO_ONE


def test_a_delivery_without_a_recorded_outcome_is_repeated_with_the_same_id(
    embedded: None, receiver: Receiver, open_to: Any
) -> None:
    open_to(receiver)
    finished(receiver.url)
    code = (
        "import os; from worker.webhooks import courier, deliveries; deliveries.MARGIN_SECONDS = -4\n"
        "courier.settle = lambda *_: os.kill(os.getpid(), 9)\n"
        "courier.deliver(deliveries.claim([], []))"
    )
    killed = subprocess.run([sys.executable, "-W", "error", "-c", code], cwd=ROOT, env=dict(os.environ), check=False)
    assert killed.returncode == -signal.SIGKILL
    (row,) = rows(WebhookDelivery)
    assert (row.status, row.tries, len(receiver.received)) == ("pending", [], 1)
    with Courier():
        eventually(lambda: get(WebhookDelivery, row.id).status == "delivered", 20.0)
    assert [one.id for one in receiver.received] == [row.id] * 2


def test_a_try_that_was_taken_over_records_nothing(both: None, receiver: Receiver, open_to: Any) -> None:
    open_to(receiver)
    finished(receiver.url)
    stale = next_delivery()
    change(WebhookDelivery, stale.id, due_at=now() - 1)
    newer = next_delivery()
    assert (newer.id, newer.attempt) == (stale.id, 2)
    assert deliver(stale) is None and rows(WebhookDelivery)[0].tries == []
    assert deliver(newer) == "delivered"


def answers(*found: list[str]) -> Callable[..., Any]:
    """A resolver that returns the next of these addresses for each lookup, and then always the last one."""
    left = list(found)

    def resolve(host: Any, port: Any, *_: Any, **__: Any) -> Any:
        name = host.decode() if isinstance(host, bytes) else host
        addresses = [name] if name.replace(".", "").isdigit() else left.pop(0) if len(left) > 1 else left[0]
        return [(2, 1, 6, "", (address, port)) for address in addresses]

    return resolve


def test_the_connection_is_made_to_the_checked_address(
    embedded: None, authority: Authority, open_to: Any, monkeypatch: Any
) -> None:
    with (
        authority.receiver("rebind.test", host="127.0.0.2") as good,
        authority.receiver("rebind.test", host="127.0.0.1", port=good.port) as inner,
    ):
        open_to(good, webhook_allow="127.0.0.2/32")
        resolve = answers(["127.0.0.2"], ["127.0.0.1"])
        monkeypatch.setattr(outward, "getaddrinfo", resolve)
        monkeypatch.setattr("socket.getaddrinfo", resolve)
        finished(f"https://rebind.test:{good.port}/")
        assert deliver(next_delivery()) == "delivered"
        assert [one.headers["host"] for one in good.received] == [f"rebind.test:{good.port}"]
        finished(f"https://rebind.test:{good.port}/")
        assert deliver(next_delivery()) == "pending"
        assert inner.received == [] and len(good.received) == 1
    refused = [row.tries for row in rows(WebhookDelivery) if row.status == "pending"]
    assert [one["error"] for one in refused[0]] == ["address_refused"]


@pytest.mark.parametrize(
    "addresses",
    [["127.0.0.1"], ["93.184.216.34", "127.0.0.1"], ["::ffff:127.0.0.1"], ["64:ff9b::7f00:1"], ["2002:7f00:1::"],
     ["224.0.0.1"], ["169.254.169.254"], ["fe80::1%1"]],
)  # fmt: skip
def test_a_name_with_any_inward_address_is_refused(configure: Any, addresses: list[str], monkeypatch: Any) -> None:
    configure()
    monkeypatch.setattr(outward, "getaddrinfo", lambda *_, **__: [(2, 1, 6, "", (one, 443)) for one in addresses])
    with pytest.raises(outward.Refused):
        outward.checked("anything.test", 443)


def test_without_tls_only_allowed_networks_are_permitted(configure: Any, monkeypatch: Any) -> None:
    configure(webhook_allow="10.0.0.0/8")
    resolve = answers(["10.1.2.3"], ["93.184.216.34"])
    monkeypatch.setattr(outward, "getaddrinfo", resolve)
    assert [str(one) for one in outward.checked("inner.test", 80, plain=True)] == ["10.1.2.3"]
    with pytest.raises(outward.Refused):
        outward.checked("outer.test", 80, plain=True)


def test_an_untrusted_certificate_is_refused_and_no_proxy_is_used(
    embedded: None, receiver: Receiver, open_to: Any, monkeypatch: Any, configure: Any
) -> None:
    open_to(receiver)
    configure(webhook_ca_file="")
    for name in ("HTTPS_PROXY", "https_proxy", "ALL_PROXY"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    finished(receiver.url)
    delivery = next_delivery()
    assert courier.attempt(delivery).error == "certificate_refused"
    assert receiver.received == []


def test_a_worker_stops_while_a_receiver_does_not_respond(
    embedded: None, receiver: Receiver, open_to: Any, monkeypatch: Any
) -> None:
    open_to(receiver, webhook_seconds=60)
    monkeypatch.setattr(courier, "FAREWELL_SECONDS", 0.2)
    receiver.otherwise = 60.0
    finished(receiver.url)
    with Courier():
        eventually(lambda: receiver.received != [], 20.0)
        began = time.monotonic()
    assert time.monotonic() - began < 10
    assert [row.status for row in rows(WebhookDelivery)] == ["pending"]
