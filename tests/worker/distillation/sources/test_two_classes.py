"""Teachers of two classes, the minimum for a balance of classes."""

import io

import pytest
import torch
from safetensors.torch import save_file

from tests.worker.distillation.killed_runs import events_of, job_of, write_inputs
from worker.distillation import networks
from worker.distillation.check import check
from worker.distillation.contract import read_contract
from worker.distillation.process.event_pipe import Channel
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


@pytest.mark.slow
@pytest.mark.timeout(1200)
def test_an_alexnet_of_224_pixels_to_its_half(tmp_path):
    """The configuration of DAFL's authors for CelebA (arXiv:1904.01186), with few images."""
    pixels = {"channels": 3, "height": 224, "width": 224, "mean": [0.5] * 3, "std": [0.25] * 3}
    torch.manual_seed(0)
    (tmp_path / "inputs").mkdir()
    teacher = networks.build("torchvision/alexnet", 2, read_contract(pixels), {})
    save_file(teacher.state_dict(), tmp_path / "inputs" / "teacher.safetensors")
    source = {"name": "dafl", **SMALL, "generator_batch": 8, "initial_generator_steps": 2, "pool_images": 16}
    made = job_of(
        tmp_path, classes=2, source=source, objectives=[{"name": "kd"}], training={"steps": 3, "batch_size": 8},
        student={"network": "alexnet", "options": {"width": 32}, "initial_weights": "teacher"},
    )  # fmt: skip
    made.values["teacher"] |= {"network": "torchvision/alexnet", "input": pixels}
    check(made)
    output = io.StringIO()
    summary = Run(made, Channel(output)).execute()
    shown = [event["values"] for event in events_of(output) if event["event"] == "metrics"]
    assert shown[-1]["generator/pool_images"] == 16
    assert (summary["teacher_parameters"], summary["parameters"]) == (57_012_034, 14_263_202)
