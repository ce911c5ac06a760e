"""Runs of the engine in this process that are killed at a step and restored from files."""

import io
import json
import shutil
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file

from worker.distillation import networks
from worker.distillation.contract import read_contract
from worker.distillation.job import Job
from worker.distillation.process.event_pipe import Channel
from worker.distillation.run import Run

INPUT = {"channels": 1, "height": 16, "width": 16, "mean": [0.5], "std": [0.25]}
TRAINING = {"steps": 5, "batch_size": 16, "optimizer": "sgd", "learning_rate": 0.01, "seed": 3}


class Killed(BaseException):
    """Stands for a killed process."""


class KilledRun(Run):
    """Saves a checkpoint after `at` steps of the whole job (including warm-up), takes one more step, and raises Killed."""

    def __init__(self, job, channel, at):
        super().__init__(job, channel)
        self.at = at
        self.steps = 0

    def after_step(self, run):
        super().after_step(run)
        self.steps += 1
        if self.steps == self.at:
            self._checkpoint(run, wait=True)
        if self.steps == self.at + 1 or (self.steps == self.at and run.finished):
            raise Killed


def write_inputs(folder: Path, images: int = 64, classes: int = 4) -> None:
    """Write a dataset with separable classes, and a teacher that was trained on it for a few steps."""
    draw = torch.Generator().manual_seed(7)
    label = torch.arange(images) % classes
    image = torch.randint(0, 120, (images, 1, 16, 16), generator=draw, dtype=torch.uint8)
    for number in range(classes):
        image[label == number, :, 4 * number : 4 * number + 4] += 120
    inputs = folder / "inputs"
    inputs.mkdir(parents=True)
    names = {"class_names": json.dumps([str(number) for number in range(classes)])}
    save_file({"train.image": image, "train.label": label}, inputs / "dataset.safetensors", names)
    torch.manual_seed(11)
    teacher = networks.build("lenet5", classes, read_contract(INPUT), {})
    optimizer = torch.optim.Adam(teacher.parameters(), lr=3e-3)
    x = (image.float() / 255 - 0.5) / 0.25
    for _ in range(40):
        optimizer.zero_grad()
        torch.nn.functional.cross_entropy(teacher(x), label).backward()
        optimizer.step()
    save_file(teacher.state_dict(), inputs / "teacher.safetensors")


def job_of(folder: Path, classes: int = 4, **spec) -> Job:
    """A job in `folder`, which contains the inputs; `spec` replaces keys of a small default spec."""
    whole = {
        "task": "classification",
        "student": {"network": "lenet5_half", "options": {}},
        "source": {"name": "dataset"},
        "objectives": [{"name": "cross_entropy", "weight": 1.0}],
        "procedure": {"name": "direct"},
        "transforms": [],
        "exports": ["safetensors"],
        "evaluation": None,
    } | spec
    whole["training"] = TRAINING | spec.get("training", {})
    synthesised = whole["source"]["name"] != "dataset"
    values = {
        "kind": "distill", "job": "job_test", "attempt": 1, "spec": whole,
        "teacher": {"network": "lenet5", "options": {}, "classes": classes, "class_names": [], "input": INPUT,
                    "weights": "inputs/teacher.safetensors"},
        "dataset": None if synthesised else "inputs/dataset.safetensors",
        "device": "cpu", "checkpoint_seconds": 3600,
    }  # fmt: skip
    return Job(values, folder)


def events_of(output: io.StringIO) -> list[dict]:
    return [json.loads(line) for line in output.getvalue().splitlines()]


def run_whole(job: Job) -> list[dict]:
    """Run a job to its end; return its events."""
    output = io.StringIO()
    Run(job, Channel(output)).execute()
    return events_of(output)


def run_killed(job: Job, at: int, elsewhere: Path) -> list[dict]:
    """Kill the job after `at` steps, copy inputs and checkpoint files to `elsewhere`, and run it there to its end.

    Returns the events of the second run.
    """
    output = io.StringIO()
    try:
        KilledRun(job, Channel(output), at).execute()
    except Killed:
        pass
    else:
        raise AssertionError(f"the job ended before step {at}")
    manifest = next(event["manifest"] for event in events_of(output) if event["event"] == "checkpoint")
    shutil.copytree(job.folder / "inputs", elsewhere / "inputs")
    (elsewhere / "checkpoints").mkdir()
    for entry in manifest["parts"].values():
        shutil.copy(job.folder / "checkpoints" / entry["sha256"], elsewhere / "checkpoints")
    (elsewhere / "checkpoints" / "resume.json").write_text(json.dumps(manifest))
    torch.manual_seed(999)  # a new process has other random numbers
    return run_whole(Job({**job.values, "resume": "checkpoints/resume.json"}, elsewhere))


def student_of(folder: Path) -> dict[str, torch.Tensor]:
    return load_file(folder / "output" / "student.safetensors")


def same_bits(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> bool:
    return one.keys() == other.keys() and all(torch.equal(one[key], other[key]) for key in one)


def with_residual_teacher(inputs: Path, folder: Path) -> Path:
    """A copy of a job's folder with a `resnet8_cifar` (which has BatchNorm) as teacher, trained for a few steps."""
    shutil.copytree(inputs, folder)
    data = load_file(folder / "inputs" / "dataset.safetensors")
    image, label = (data["train.image"].float() / 255 - 0.5) / 0.25, data["train.label"]
    torch.manual_seed(11)
    teacher = networks.build("resnet8_cifar", 4, read_contract(INPUT), {})
    optimizer = torch.optim.Adam(teacher.parameters(), lr=3e-3)
    for _ in range(15):
        optimizer.zero_grad()
        torch.nn.functional.cross_entropy(teacher(image), label).backward()
        optimizer.step()
    save_file(teacher.state_dict(), folder / "inputs" / "teacher.safetensors")
    return folder
