"""The ids of a job appear in every log: the API's, the workers' and the engine's."""

import json
from pathlib import Path
from typing import Any

import pytest

from tests.integration.whole import TEACHER, Whole, eventually

REQUEST = "trace-me-1"


def read(line: str) -> dict[str, Any]:
    try:
        found = json.loads(line)
    except ValueError:
        pytest.fail(f"this line of the log is not JSON: {line}")
    assert isinstance(found, dict), line
    return found


def lines(whole: Whole, **wanted: Any) -> list[dict[str, Any]]:
    """The lines of the service's log that contain all of these values; every line must be JSON."""
    found = [read(line) for line in whole.log.read_text().splitlines()]
    return [line for line in found if wanted.items() <= line.items()]


@pytest.mark.slow
def test_a_job_leaves_its_ids_in_every_log(tmp_path: Path, inputs: Path) -> None:
    with Whole(tmp_path / "data") as whole, whole.client() as client:
        teacher = client.teachers.send(inputs / "teacher.safetensors", **TEACHER)["id"]
        dataset = client.datasets.send(inputs / "images.npz")["id"]
        spec = {"teacher": teacher, "dataset": dataset, "student": {"network": "lenet5_half"}, "training": {"steps": 3}}
        headers = {"X-Request-ID": REQUEST}
        answer = client.connection.request("POST", "jobs", json=spec, headers=headers)
        job = answer.json()["id"]
        assert answer.headers["x-request-id"] == answer.json()["request_id"] == REQUEST
        ended = client.jobs.wait(job, 120)
        assert lines(whole, request_id=REQUEST, event="request", path="/v1/jobs", status=202)
        assert lines(whole, request_id=REQUEST, event="job_submitted", job=job)
        assert lines(whole, request_id=REQUEST, event="inspection_begins", subject=job)
        assert lines(whole, request_id=REQUEST, event="attempt_begins", job=job, attempt=1)
        succeeded = {"event": "attempt_succeeded", "job": job, "attempt": 1}  # logged after the job's end is visible
        eventually(lambda: lines(whole, request_id=REQUEST, **succeeded), "the worker logs the success")
        log = eventually(lambda: ended["attempts"][0]["links"].get("log"), "the attempt's log is kept")
        first = client.connection.request("GET", log).text.splitlines()[0]
        assert json.loads(first) == {
            "event": "engine_begins", "kind": "distill", "job": job, "attempt": 1, "request": REQUEST,
        }  # fmt: skip
