"""Transformed students through the whole service: files, the client that decodes them, a job that one teaches, and a budget."""

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from typer.testing import CliRunner

from api.http.texts import number
from api.reports.compression import tables
from distillery_client import errors
from distillery_client.command_line import app
from tests.integration.whole import INPUT, TEACHER, Whole

TRANSFORMS = [
    {"name": "factorise", "keep": 0.6},
    {"name": "prune", "sparsity": 0.8, "begin": 0.0, "end": 0.4},
    {"name": "share", "begin": 0.5},
]


@pytest.mark.slow
def test_a_transformed_student_is_decoded_and_teaches(tmp_path: Path, inputs: Path) -> None:
    with Whole(tmp_path / "data") as whole, whole.client() as client:
        teacher = client.teachers.send(inputs / "teacher.safetensors", **TEACHER)["id"]
        dataset = client.datasets.send(inputs / "images.npz")["id"]
        spec = {
            "teacher": teacher, "dataset": dataset, "student": {"network": "lenet5_half"},
            "training": {"steps": 120, "batch_size": 32, "learning_rate": 0.01},
        }  # fmt: skip
        with pytest.raises(errors.InvalidRequest) as refused:
            client.jobs.submit(spec | {"transforms": list(reversed(TRANSFORMS))})
        assert "must come before" in str(refused.value.errors)
        exports = ["safetensors", "packed", "huffman"]
        job = client.jobs.submit(spec | {"transforms": TRANSFORMS, "exports": exports})["id"]
        assert client.jobs.wait(job, 180)["status"] == "succeeded"
        for name in ("student.safetensors", "student.huffman", "report.json"):
            client.artifacts.download(job, name, tmp_path)
        report = json.loads((tmp_path / "report.json").read_text())
        assert report["transformed"]["of"][1]["sparsity"] == pytest.approx(0.8, abs=0.01)
        assert report["evaluation"]["student"]["accuracy"] > 0.8
        again = tmp_path / "again.safetensors"
        result = CliRunner().invoke(app, ["unpack", str(tmp_path / "student.huffman"), "-o", str(again)])
        assert result.exit_code == 0, result.output
        own, decoded = load_file(tmp_path / "student.safetensors"), load_file(again)
        assert own.keys() == decoded.keys() and all(torch.equal(own[key], decoded[key]) for key in own)
        taught = client.jobs.submit(
            {"teacher": job, "dataset": dataset, "student": {"network": "lenet5_half", "input": INPUT}}
            | {"training": spec["training"], "exports": ["safetensors"]}
        )["id"]
        assert client.jobs.wait(taught, 180)["status"] == "succeeded"


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
        report = json.loads((tmp_path / "report.json").read_text())
        found = report["budget"]
        assert found["kept"] and found["bytes"] == (tmp_path / "student.onnx").stat().st_size <= 24_000
        shown = {table.title: table.rows for table in tables(ended["resolved"], report)}
        bytes_row, time_row = shown["Budget"]
        assert bytes_row[1:] == ("24,000", number(student["budget"]["chosen"]["bytes"]), number(found["bytes"]))
        assert "–" not in time_row and shown["Students that were tried for the budget"]
        assert {"student.safetensors", "student.onnx"} <= {row[0] for row in shown["Bytes of every file"]}
        measured = {row[0]: row[1:] for row in shown["The file that ships, in onnxruntime"]}
        assert "–" not in measured["accuracy"][:2] and "–" not in (measured["bytes"][0], measured["bytes"][2])
        assert all(row[1] == "8" for row in shown["Layer by layer"])

        with pytest.raises(errors.InvalidRequest) as refused:
            client.jobs.validate(within(bytes=500), wait_seconds=60)
        words = str(refused.value.errors)
        assert "/student/budget/bytes" in words and "the smallest is" in words
        with pytest.raises(errors.JobEnded, match="the smallest is"):
            client.jobs.wait(client.jobs.submit(within(bytes=500))["id"], 120)
