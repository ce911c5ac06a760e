"""A whole service sends webhooks about jobs to a real receiver."""

import json
from pathlib import Path
from typing import Any

import pytest

from tests.integration.test_kills import SPEC, upload
from tests.integration.whole import Whole, eventually
from tests.receiver import Authority

EVENTS = ["job.running", "job.succeeded", "job.failed", "job.cancelled"]


@pytest.mark.slow
def test_every_end_of_a_job_is_delivered_and_verifies(tmp_path: Path, inputs: Path) -> None:
    authority = Authority(tmp_path)
    with authority.receiver() as receiver:
        settings = {
            "webhook_allow": "127.0.0.0/8", "webhook_ports": str(receiver.port), "webhook_ca_file": str(authority.file),
            "webhook_retry_seconds": "0.5,0.5",
        }  # fmt: skip
        receiver.script = [500]
        with Whole(tmp_path / "data", **settings) as whole, whole.client() as client:
            secret = client.connection.request("POST", "webhooks/secret").json()["secret"]
            ids = upload(client, inputs) | {"webhook": {"url": receiver.url, "events": EVENTS}}
            succeeds = client.jobs.submit(SPEC | ids | {"training": {"steps": 5}})["id"]
            cancelled = client.jobs.submit(SPEC | ids | {"training": {"steps": 100_000}})["id"]
            eventually(lambda: client.jobs.get(cancelled)["status"] == "running", "the second job runs")
            client.jobs.cancel(cancelled)
            client.jobs.wait(succeeds, 120)
            eventually(lambda: client.jobs.get(cancelled)["status"] == "cancelled", "the second job is cancelled")
            jobs = {name: client.jobs.get(name) for name in (succeeds, cancelled)}
            eventually(lambda: deliveries(client, jobs, "delivered") == 4, "everything is delivered")
        messages: dict[str, Any] = {one.id: one.verified(secret) for one in receiver.received}
        assert len(receiver.received) == 5 and len(messages) == 4  # the receiver refused the first one once
        for job_id, end in ((succeeds, "succeeded"), (cancelled, "cancelled")):
            of_job = [message for message in messages.values() if message["data"]["id"] == job_id]
            assert sorted(message["type"] for message in of_job) == sorted(["job.running", f"job.{end}"])
            last = next(message["data"] for message in of_job if message["type"] == f"job.{end}")
            assert last == {name: jobs[job_id][name] for name in last}, json.dumps(last)


def deliveries(client: Any, jobs: dict[str, Any], status: str) -> int:
    pages = [client.connection.request("GET", f"jobs/{job}/webhook-deliveries").json()["data"] for job in jobs]
    return sum(one["status"] == status for page in pages for one in page)
