"""A budget in place of an architecture, over HTTP: what was chosen is in the job, and what is impossible is refused."""

import json
from pathlib import Path

import pytest

from distillery_client import errors
from tests.integration.whole import TEACHER, Whole


@pytest.mark.slow
def test_a_student_within_a_budget(tmp_path: Path, inputs: Path) -> None:
    with Whole(tmp_path / "data") as whole, whole.client() as client:
        teacher = client.teachers.send(inputs / "teacher.safetensors", **TEACHER)["id"]
        dataset = client.datasets.send(inputs / "images.npz")["id"]
        spec = {
            "teacher": teacher, "dataset": dataset, "exports": ["safetensors", "onnx"],
            "training": {"steps": 150, "batch_size": 32, "learning_rate": 0.01},
        }  # fmt: skip

        def within(**limits: float) -> dict:
            return spec | {"student": {"budget": limits}}

        validated = client.jobs.validate(within(bytes=24_000, milliseconds=100), wait_seconds=60)
        assert validated["checked"] == ["spec", "networks"], validated
        chosen = validated["resolved"]["student"]["budget"]["chosen"]
        assert chosen["rounded"] and validated["facts"]["chosen"]["reasons"]

        job = client.jobs.submit(within(bytes=24_000, milliseconds=100))["id"]
        ended = client.jobs.wait(job, 240)
        assert ended["status"] == "succeeded", ended
        student = ended["resolved"]["student"]
        assert student["budget"]["chosen"]["step"] == chosen["step"]
        assert ended["resolved"]["transforms"][-1]["name"] == "int8"
        client.artifacts.download(job, "report.json", tmp_path)
        client.artifacts.download(job, "student.onnx", tmp_path)
        found = json.loads((tmp_path / "report.json").read_text())["budget"]
        assert found["kept"] and found["bytes"] == (tmp_path / "student.onnx").stat().st_size <= 24_000

        with pytest.raises(errors.InvalidRequest) as refused:
            client.jobs.validate(within(bytes=500), wait_seconds=60)
        words = str(refused.value.errors)
        assert "/student/budget/bytes" in words and "the smallest is" in words
        with pytest.raises(errors.JobEnded, match="the smallest is"):
            client.jobs.wait(client.jobs.submit(within(bytes=500))["id"], 120)
