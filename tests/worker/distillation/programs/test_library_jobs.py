"""Twenty networks of libraries, each as a program that teaches a fresh one of itself: taps, resume, and every export."""

import importlib.util
import json
import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from tests.worker.distillation.killed_runs import job_of, run_killed, run_whole, same_bits, student_of
from tests.worker.distillation.programs.samples import CLASSES, LIBRARY, library_networks, of, packed
from worker.distillation.export import onnx
from worker.distillation.export.portable import random_images
from worker.distillation.job import Job
from worker.distillation.programs import load

FILE = "fil_1"
OBJECTIVES = [
    {"name": "kd", "weight": 1.0},
    {"name": "attention_transfer", "weight": 1.0},
    {"name": "nst", "weight": 1.0},
]
NO_ONNX = ("timm_maxvit",)
"""Networks that torch does not export themselves either."""
IMAGES = 8


def folder_of(name: str, folder: Path) -> Path:
    """A job's folder with a few images and the packed network."""
    make, size = library_networks()[name]
    (folder / "inputs").mkdir(parents=True)
    packed(of(make), folder / "inputs" / "net.safetensors", size=size)
    draw = torch.Generator().manual_seed(7)
    image = torch.randint(0, 256, (IMAGES, 3, size, size), generator=draw, dtype=torch.uint8)
    names = {"class_names": json.dumps([str(number) for number in range(CLASSES)])}
    tensors = {"train.image": image, "train.label": torch.arange(IMAGES) % CLASSES}
    save_file(tensors, folder / "inputs" / "dataset.safetensors", names)
    return folder


def program_job(folder: Path, exports: list[str]) -> Job:
    training = {"steps": 2, "batch_size": 4, "learning_rate": 0.001}
    student = {"network": "program", "options": {}, "program": FILE}
    job = job_of(folder, student=student, objectives=OBJECTIVES, exports=exports, training=training)
    said = {
        "teacher": {"network": "program", "program": "inputs/net.safetensors"},
        "files": {FILE: "inputs/net.safetensors"},
    }
    (folder / "job.json").write_text(json.dumps(job.values | said))
    return Job.read(folder / "job.json")


def alone(path: Path) -> torch.nn.Module:
    """The network that a `student.py` loads."""
    spec = importlib.util.spec_from_file_location("student", path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.load(path.with_suffix(".safetensors"))


@pytest.mark.slow
@pytest.mark.parametrize("name", LIBRARY)
def test_it_teaches_itself_resumes_and_is_exported(name: str, tmp_path: Path):
    folder = folder_of(name, tmp_path / "whole")
    (tmp_path / "killed").mkdir()
    (tmp_path / "killed" / "inputs").symlink_to(folder / "inputs")  # a program is checked once for each place
    formats = [] if name in NO_ONNX else ["onnx"]
    run_whole(program_job(folder, ["safetensors", "program", *formats]))
    run_killed(program_job(tmp_path / "killed", ["safetensors"]), 1, tmp_path / "resumed")
    assert same_bits(student_of(folder), student_of(tmp_path / "resumed"))

    output = folder / "output"
    student = load(output / "student.safetensors").eval()
    contract = Job.read(folder / "job.json").contract
    image = random_images(contract, 3, seed=1)
    with torch.no_grad():
        expected = student(image)
        assert torch.equal(load(output / "student.program.safetensors").eval()(image), expected)
        given = alone(output / "student.py")(image)
    assert float((given - expected).abs().max()) <= 1e-5 * float(expected.abs().max())
    if formats:
        onnx.verify(output / "student.onnx", student, contract)
    shutil.rmtree(tmp_path)  # up to 4 GB
