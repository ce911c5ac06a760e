"""A job on two devices through the whole service: two CPU processes, one of which is killed during the training."""

import os
import signal
from pathlib import Path
from typing import Any

import pytest

from tests.integration.test_kills import checkpoints, step_of, student_of, upload
from tests.integration.whole import Whole, engines, eventually

SPEC: dict[str, Any] = {
    "student": {"network": "lenet5_half"},
    "source": {"name": "dataset", "augmentation": "shift"},
    "objectives": [{"name": "cross_entropy", "weight": 0.1}, {"name": "kd", "weight": 0.9}, {"name": "dist"}],
    "training": {"steps": 400, "batch_size": 32, "learning_rate": 0.01},
    "exports": ["safetensors"],
    "resources": {"gpus": 2},
}


def ranks(data: Path, job: str) -> list[int]:
    """The processes of a job's engine, rank 0 first."""
    return sorted(pid for pid, folder in engines(data).items() if f"/work/{job}/" in folder)


@pytest.mark.slow
def test_a_job_on_two_devices_survives_the_death_of_a_rank_and_is_cancelled_completely(tmp_path: Path, inputs: Path):
    with Whole(tmp_path / "data", devices="2", engine_threads="2") as whole, whole.client() as client:
        ids = upload(client, inputs)
        undisturbed = student_of(client, client.jobs.submit(SPEC | ids)["id"])

        job = client.jobs.submit(SPEC | ids)["id"]
        eventually(lambda: checkpoints(client, job, attempt=1), "a part is trained and stored")
        assert len(ranks(whole.data, job)) == 2
        os.kill(ranks(whole.data, job)[1], signal.SIGKILL)
        assert student_of(client, job) == undisturbed
        assert client.jobs.get(job)["attempt"] == 2

        job = client.jobs.submit(SPEC | ids)["id"]
        eventually(lambda: step_of(client, job) >= 10, "it trains")
        client.jobs.cancel(job)
        eventually(lambda: client.jobs.get(job)["status"] == "cancelled", "it is cancelled")
        eventually(lambda: not ranks(whole.data, job), "no process of the job is left")


@pytest.mark.slow
def test_a_job_that_requests_more_devices_than_exist_waits(tmp_path: Path, inputs: Path):
    with Whole(tmp_path / "data") as whole, whole.client() as client:
        job = client.jobs.submit(SPEC | upload(client, inputs))["id"]
        eventually(lambda: "2 devices" in (client.jobs.get(job)["reason"] or ""), "it says what it waits for")
