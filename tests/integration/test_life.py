"""The life of a job in whole services of real processes and the real engine: cancels, drains, poison jobs, uploads meanwhile."""

import json
import os
import signal
import time
from pathlib import Path
from typing import Any

import pytest

from distillery_client import Client
from tests.integration.test_kills import SPEC, checkpoints, step_of, student_of, upload
from tests.integration.whole import Whole, engines, eventually

HOURS: dict[str, Any] = SPEC | {"training": {"steps": 50_000_000, "batch_size": 32, "learning_rate": 0.01}}
CANCEL_SECONDS, DRAIN_SECONDS = 5.0, 15.0
LARGE = {
    "student": {"network": "torchvision/resnet50"},
    "objectives": [{"name": "cross_entropy"}],
    "training": {"steps": 1, "batch_size": 8},
    "exports": ["safetensors", "onnx"],
}


def is_clear(whole: Whole) -> bool:
    """No engine runs, and its working folder is empty; parts of it may be disappearing while this reads it."""
    return not engines(whole.data) and not any(files for _, _, files in os.walk(whole.data / "work"))


def cancel_in_time(whole: Whole, client: Client, job: str) -> None:
    """Cancel; check that the job is final and its engine dead in five seconds, and the working folder empty soon after."""
    asked = time.monotonic()
    client.jobs.cancel(job)
    eventually(lambda: client.jobs.get(job)["status"] == "cancelled" and not engines(whole.data), "it is cancelled")
    took = time.monotonic() - asked
    eventually(lambda: is_clear(whole), "nothing is left over", 10)
    assert took < CANCEL_SECONDS, f"it took {took:.1f} s"
    assert not list(client.artifacts.list(job))


def resumed_from(client: Client, job: str) -> list[int | None]:
    return [
        event["data"]["resumed_from"] for event in client.jobs.events(job) if "resumed_from" in (event["data"] or {})
    ]


@pytest.mark.slow
def test_uploads_are_inspected_while_a_long_job_runs_and_it_is_drained_and_cancelled(tmp_path: Path, inputs: Path):
    with Whole(tmp_path / "data", lease_seconds="10", checkpoint_seconds="3600") as whole, whole.client() as client:
        ids = upload(client, inputs)
        job = client.jobs.submit(HOURS | ids)["id"]
        eventually(lambda: step_of(client, job) >= 50, "it trains")

        started_at = time.monotonic()
        assert client.datasets.send(inputs / "images.npz")["status"] == "ready"
        assert time.monotonic() - started_at < 30  # a queue behind the job would take hours

        at, started_at = step_of(client, job), time.monotonic()
        worker = whole.processes["distill"]
        worker.send_signal(signal.SIGTERM)
        worker.send_signal(signal.SIGTERM)  # a second one changes nothing
        assert worker.wait(DRAIN_SECONDS) == 0
        shown = client.jobs.get(job)
        assert shown["status"] == "queued" and "the worker was drained" in shown["reason"], shown
        whole.start("distill")
        eventually(lambda: len(resumed_from(client, job)) == 2, "it continues")
        assert resumed_from(client, job)[1] >= at  # although no checkpoint was due for an hour
        eventually(
            lambda: client.jobs.get(job)["attempt"] == 2 and step_of(client, job) > at + 50, "it continues to train"
        )
        cancel_in_time(whole, client, job)


@pytest.mark.slow
def test_a_cancel_is_final_and_nothing_is_left_even_if_the_worker_is_killed(tmp_path: Path, inputs: Path):
    with Whole(tmp_path / "data", lease_seconds="30") as whole, whole.client() as client:
        ids = upload(client, inputs)
        job = client.jobs.submit(HOURS | ids)["id"]
        eventually(lambda: step_of(client, job) >= 50, "it trains")
        asked = time.monotonic()
        client.jobs.cancel(job)
        whole.kill("distill")  # only the sweep of the other worker can do it
        eventually(lambda: client.jobs.get(job)["status"] == "cancelled" and is_clear(whole), "it is cancelled")
        assert time.monotonic() - asked < CANCEL_SECONDS + 3


@pytest.mark.slow
@pytest.mark.parametrize("when", ["queued", "claimed", "checkpointing", "evaluating", "exporting"])
def test_a_cancel_is_final_in_five_seconds_in_every_phase(tmp_path: Path, inputs: Path, when: str):
    every = "0" if when == "checkpointing" else "30"
    with Whole(tmp_path / "data", checkpoint_seconds=every) as whole, whole.client() as client:
        ids = upload(client, inputs)
        if when == "queued":
            whole.kill("distill")
        job = client.jobs.submit((LARGE if when in ("evaluating", "exporting") else HOURS) | ids)["id"]

        def reached() -> bool:
            shown = client.jobs.get(job)
            if when in ("queued", "claimed"):
                return shown["status"] == ("queued" if when == "queued" else "running")
            return shown["phase"] == when or (when == "checkpointing" and step_of(client, job) > 20)

        eventually(reached, f"it is {when}")
        cancel_in_time(whole, client, job)


@pytest.mark.slow
def test_a_drain_during_the_export_is_short_and_repeats_no_training(tmp_path: Path, inputs: Path):
    with Whole(tmp_path / "data", drain_grace_seconds="2") as whole, whole.client() as client:
        spec = LARGE | {"training": {"steps": 12, "batch_size": 8}}
        job = client.jobs.submit(spec | upload(client, inputs))["id"]
        eventually(lambda: client.jobs.get(job)["phase"] == "exporting", "it exports")
        started_at = time.monotonic()
        worker = whole.processes["distill"]
        worker.terminate()
        assert worker.wait(DRAIN_SECONDS) == 0
        assert time.monotonic() - started_at < DRAIN_SECONDS
        whole.start("distill")
        assert client.jobs.wait(job, 240)["status"] == "succeeded"
        assert resumed_from(client, job) in (
            [None],
            [None, 12],
        )  # it finished within the grace period, or no training is repeated


@pytest.mark.slow
def test_a_poison_job_fails_after_three_attempts_and_the_queue_continues(tmp_path: Path, inputs: Path):
    with Whole(tmp_path / "data", checkpoint_seconds="3600") as whole, whole.client() as client:
        ids = upload(client, inputs)
        poison = client.jobs.submit(HOURS | ids | {"priority": 5})["id"]
        good = client.jobs.submit(SPEC | ids | {"training": {"steps": 5}})["id"]
        for attempt in (1, 2, 3):
            trains = lambda attempt=attempt: client.jobs.get(poison)["attempt"] == attempt and step_of(client, poison)  # noqa: E731
            eventually(trains, f"attempt {attempt} trains")
            whole.kill_engine()
        eventually(lambda: client.jobs.get(poison)["status"] == "failed", "it is given up")
        error = client.jobs.get(poison)["error"]
        assert error["code"] == "poison" and "signal 9 (SIGKILL)" in error["message"]
        student_of(client, good)


@pytest.mark.slow
def test_ten_kills_with_progress_leave_the_student_bit_equal(tmp_path: Path, inputs: Path):
    with Whole(tmp_path / "data") as whole, whole.client() as client:
        ids = upload(client, inputs)
        spec = SPEC | ids | {"training": {"steps": 3000, "batch_size": 32, "learning_rate": 0.01}}
        undisturbed = student_of(client, client.jobs.submit(spec)["id"])
        job = client.jobs.submit(spec)["id"]
        for attempt in range(1, 11):
            furthest = (client.jobs.get(job)["progress"] or {}).get("step", 0)

            def goes_on(attempt: int = attempt, furthest: int = furthest) -> bool:
                return client.jobs.get(job)["attempt"] == attempt and step_of(client, job) >= furthest + 60

            eventually(goes_on, f"attempt {attempt} makes progress")
            seen = checkpoints(client, job)
            eventually(lambda seen=seen: checkpoints(client, job) > seen, "there is another checkpoint")
            whole.kill_engine()
        assert student_of(client, job) == undisturbed
        assert client.jobs.get(job)["attempt"] == 11


@pytest.mark.slow
def test_a_time_limit_ships_the_student_as_it_is_and_counts_over_attempts(tmp_path: Path, inputs: Path):
    with Whole(tmp_path / "data") as whole, whole.client() as client:
        spec = HOURS | upload(client, inputs)
        job = client.jobs.submit(spec | {"training": spec["training"] | {"time_limit_minutes": 0.4}})["id"]
        eventually(lambda: step_of(client, job) >= 100, "it trains")
        whole.kill_engine()
        ended = client.jobs.wait(job, 120)
        assert (ended["status"], ended["stopped_early"], ended["attempt"]) == ("succeeded", "time_limit", 2)
        client.artifacts.download(job, "report.json", tmp_path)
        assert json.loads((tmp_path / "report.json").read_text())["stopped_early"]["reason"] == "time_limit"
