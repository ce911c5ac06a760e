"""Teachers of two classes, the fewest that can be in balance."""

import io

import pytest
import torch

from tests.worker.distillation.killed_runs import events_of, job_of, write_inputs
from worker.distillation.channel import Channel
from worker.distillation.run import Run

SMALL = {
    "generator_width": 8,
    "latent": 8,
    "generator_batch": 32,
    "student_steps_per_generator_step": 4,
    "precision": "fp32",
}


@pytest.fixture(scope="module")
def inputs(tmp_path_factory):
    folder = tmp_path_factory.mktemp("two classes")
    torch.set_num_threads(1)
    write_inputs(folder, classes=2)
    return folder


@pytest.mark.parametrize("source", ["dafl", "dfad"])
def test_a_student_from_nothing_learns_them_without_data(inputs, source):
    made = job_of(
        inputs, classes=2, source={"name": source, **SMALL}, objectives=[{"name": "kd"}],
        training={"steps": 160, "batch_size": 32, "optimizer": "adam", "learning_rate": 0.004},
        evaluation={"split": "train"},
    )  # fmt: skip
    made.values["evaluation"] = "inputs/dataset.safetensors"
    output = io.StringIO()
    summary = Run(made, Channel(output)).execute()
    events = events_of(output)
    balance = [each["values"]["generator/class_balance"] for each in events if each["event"] == "metrics"]
    assert all(0 <= each <= 1 + 1e-6 for each in balance) and balance[-1] > 0.9
    assert summary["agreement"] > 0.9
