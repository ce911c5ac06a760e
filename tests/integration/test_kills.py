"""Kill -9 of the engine, the worker and the API in the middle of a job: the student is bit-equal."""

import shutil
from pathlib import Path
from typing import Any

import pytest

from distillery_client import Client
from tests.integration.whole import TEACHER, Whole, eventually

SPEC: dict[str, Any] = {
    "student": {"network": "lenet5_half"},
    "source": {"name": "dataset", "augmentation": "shift"},
    "objectives": [{"name": "cross_entropy", "weight": 0.1}, {"name": "kd", "weight": 0.9}, {"name": "nst"}],
    "training": {"steps": 700, "batch_size": 32, "learning_rate": 0.01},
    "exports": ["safetensors"],
}


@pytest.fixture
def whole(tmp_path: Path):
    with Whole(tmp_path / "data") as service:
        yield service


def upload(client: Client, inputs: Path) -> dict[str, str]:
    teacher = client.teachers.send(inputs / "teacher.safetensors", **TEACHER)
    dataset = client.datasets.send(inputs / "images.npz")
    return {"teacher": teacher["id"], "dataset": dataset["id"]}


def step_of(client: Client, job: str) -> int:
    shown = client.jobs.get(job)
    assert shown["status"] in ("queued", "running"), shown
    return (shown["progress"] or {}).get("step", 0) if shown["status"] == "running" else 0


def checkpoints(client: Client, job: str, attempt: int | None = None) -> int:
    """How many checkpoints of a job, or of one attempt at it, have been stored; a kill before the first begins again."""
    stored = [event for event in client.jobs.events(job) if event["type"] == "checkpoint"]
    return len([event for event in stored if attempt in (None, event["attempt"])])


def student_of(client: Client, job: str) -> str:
    """The hash of the student's file."""
    ended = client.jobs.wait(job, 120)
    assert ended["status"] == "succeeded", ended
    files = {artifact["name"]: artifact["sha256"] for artifact in client.artifacts.list(job)}
    return files["student.safetensors"]


def test_the_student_is_the_same_after_every_process_was_killed(whole: Whole, inputs: Path):
    with whole.client() as client:
        ids = upload(client, inputs)
        undisturbed = student_of(client, client.jobs.submit(SPEC | ids)["id"])

        job = client.jobs.submit(SPEC | ids)["id"]
        eventually(lambda: checkpoints(client, job, attempt=1), "a part is trained and stored")
        whole.kill_engine()
        eventually(lambda: checkpoints(client, job, attempt=2), "it goes on")
        whole.kill("distill")
        whole.start("distill")
        eventually(lambda: checkpoints(client, job, attempt=3), "it goes on")
        whole.kill("api")
        whole.start("api")
        assert student_of(client, job) == undisturbed
        events = list(client.jobs.events(job))
        assert [event["seq"] for event in events] == list(range(1, len(events) + 1))
        resumed = [event["message"] for event in events if "started from step" in event["message"]]
        assert len(resumed) == 2, [event["message"] for event in events]


@pytest.mark.slow
def test_every_job_runs_once_even_if_all_messages_are_deleted(whole: Whole, inputs: Path):
    short = SPEC | {"training": {"steps": 5}}
    with whole.client() as client:
        ids = upload(client, inputs)
        jobs = []
        for _ in range(3):
            jobs.append(client.jobs.submit(short | ids)["id"])
            for folder in whole.data.glob("**/broker*/*"):
                shutil.rmtree(folder, ignore_errors=True)
        for job in jobs:
            student_of(client, job)
            attempts = client.jobs.get(job)[
                "attempts"
            ]  # more than one only if the worker was starved and lost its lease
            assert [each["outcome"] for each in attempts[:-1]] == ["lost"] * (len(attempts) - 1)
