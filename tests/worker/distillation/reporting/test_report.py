"""The report: costs that can be counted by hand, and null values with notes for what was not measured."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from worker.distillation import networks
from worker.distillation.contract import InputContract
from worker.distillation.export.measures import latency, multiply_adds
from worker.distillation.job import Job
from worker.distillation.procedure import Member, StageResult
from worker.distillation.reporting import report as reports
from worker.distillation.reporting.finished_run import FinishedRun
from worker.distillation.reporting.report import report

CONTRACT = InputContract(1, 8, 8, (0.5,), (0.5,))


def make(tmp_path: Path, measured: dict[str, Any], **spec: Any) -> dict[str, Any]:
    options = {"hidden": [5]}
    teacher = nn.Sequential(nn.Flatten(), nn.Linear(64, 100), nn.ReLU(), nn.Linear(100, 3))
    student = nn.Sequential(nn.Flatten(), nn.Linear(64, 5), nn.ReLU(), nn.Linear(5, 3))
    (tmp_path / "teacher").write_bytes(bytes(1234))
    (tmp_path / "student.safetensors").write_bytes(bytes(77))
    contract = {"channels": 1, "height": 8, "width": 8, "mean": [0.5], "std": [0.5]}
    values = {
        "job": "job_1",
        "attempt": 2,
        "spec": {
            "task": "classification",
            "student": {"network": "mlp", "options": options},
            "source": {"name": "dataset"},
            "training": {"seed": 5, "epochs": 1},
            **spec,
        },
        "teacher": {"network": "mlp", "classes": 3, "weights": "teacher", "input": contract},
    }
    finished = FinishedRun(
        job=Job(values, tmp_path),
        student=student,
        member=Member("mlp", options, objectives=()),
        teacher=teacher,
        files=[{"name": "student.safetensors", "path": tmp_path / "student.safetensors"}],
        checkpoint={"checkpoint": "last", "why": "the weights at the end of training"},
        measured=measured,
        history=[StageResult("student", 3, {"loss": float("nan")})],
        environment={"versions": {"python": "3"}, "device": "cpu"},
        seconds=2.0,
        phase_seconds={"distilling": 1.5},
    )
    return report(finished)


def test_costs_are_those_counted_by_hand(tmp_path: Path):
    content = make(tmp_path, {"evaluation": None, "without_data": None})
    student, teacher = content["student"], content["teacher"]
    assert student["parameters"] == 64 * 5 + 5 + 5 * 3 + 3 and student["multiply_adds"] == 64 * 5 + 5 * 3
    assert teacher["multiply_adds"] == 64 * 100 + 100 * 3 and teacher["file_bytes"] == 1234
    assert student["files"] == [{"name": "student.safetensors", "bytes": 77}] and content["summary"]["bytes"] == 77
    assert student["latency"]["threads"] == torch.get_num_threads() and student["latency"]["milliseconds"] > 0
    assert (
        content["environment"]["versions"]["torch"] == torch.__version__.split("+")[0]
        or "torch" in content["environment"]["versions"]
    )


def test_convolutions_are_counted_by_hand():
    assert multiply_adds(nn.Conv2d(1, 4, 3, padding=1), CONTRACT) == 4 * 9 * 64


def test_latency_stops_in_time(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("worker.distillation.export.measures.SECONDS_AT_MOST", 0.0)
    assert latency(nn.Flatten(), CONTRACT)["runs"] == 1


def test_values_that_were_not_measured_are_null_with_a_note(tmp_path: Path):
    content = make(tmp_path, {"evaluation": None, "without_data": None})
    assert content["evaluation"] is None and content["summary"]["accuracy"] is None
    assert content["notes"] == [reports.NOT_MEASURED, reports.NONE_SYNTHESISED]
    text = json.dumps(content, allow_nan=False)
    assert json.loads(text)["stages"][0]["metrics"]["loss"] is None


def test_measured_values_are_reported(tmp_path: Path):
    evaluation = {
        "split": "test",
        "images": 10,
        "student": {"accuracy": 0.9, "agreement": 0.8},
        "teacher": {"accuracy": 0.95},
    }
    content = make(tmp_path, {"evaluation": evaluation, "without_data": None}, dataset="dts_1")
    assert content["evaluation"] == evaluation and content["notes"] == []
    summary = content["summary"]
    assert (summary["accuracy"], summary["agreement"], summary["teacher_accuracy"]) == (0.9, 0.8, 0.95)
    assert content["seeds"]["seed"] == 5 and content["initial_weights"] == "random, from seed 5"


def test_metrics_on_training_or_synthesised_images_have_a_note(tmp_path: Path):
    evaluation = {"split": "train", "images": 10, "student": {"accuracy": 1.0}, "teacher": None}
    content = make(
        tmp_path, {"evaluation": evaluation, "without_data": None}, dataset="dts_1", evaluation={"dataset": "dts_1"}
    )
    assert content["notes"] == [reports.ON_TRAINING_IMAGES]
    content = make(
        tmp_path, {"evaluation": None, "without_data": {"samples": 8, "agreement_with_teacher": 0.5, "estimate": None}}
    )
    assert (
        content["notes"] == [reports.NOT_MEASURED, reports.WITHOUT_DATA]
        and content["summary"]["notes"] == content["notes"]
    )


def test_the_summary_has_the_estimate_without_data(tmp_path: Path):
    measured = {"samples": 8, "agreement_with_teacher": 0.5, "estimate": {"agreement": 0.97, "images": 400}}
    summary = make(tmp_path, {"evaluation": None, "without_data": measured})["summary"]
    assert summary["estimated_agreement"] == 0.97 and summary["agreement"] is None


def test_measuring_cost_does_not_change_the_network(tmp_path: Path):
    network = networks.build("lenet5", 3, InputContract(1, 32, 32, (0.5,), (0.5,))).train()
    reports.cost(network, InputContract(1, 32, 32, (0.5,), (0.5,)))
    assert network.training and all(parameter.requires_grad for parameter in network.parameters())


def test_the_summary_names_the_tasks_main_metric(tmp_path: Path):
    evaluation = {
        "split": "test",
        "images": 3,
        "main_metric": "r2",
        "student": {"r2": 0.5, "mean_absolute_error": 1.0},
        "teacher": None,
    }
    content = make(tmp_path, {"evaluation": evaluation, "without_data": None}, task="regression")
    assert content["summary"]["main_metric"] == {"name": "r2", "student": 0.5, "teacher": None}
    assert content["summary"]["accuracy"] is None
    assert make(tmp_path, {"evaluation": None, "without_data": None})["summary"]["main_metric"] is None
