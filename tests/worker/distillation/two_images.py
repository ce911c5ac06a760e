"""Inputs of jobs whose teacher reads another image of each sample than the student: colour instead of grey."""

from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from tests.worker.distillation.killed_runs import INPUT, job_of
from worker.distillation import networks
from worker.distillation.contract import read_contract
from worker.distillation.job import Job

COLOUR = {"channels": 3, "height": 16, "width": 16, "mean": [0.4, 0.5, 0.6], "std": [0.2, 0.25, 0.3]}
READS = {"name": "dataset", "teacher_reads": "privileged"}
STUDENT = {"network": "lenet5_half", "options": {}, "input": INPUT}


def job_with_two(folder: Path, **spec) -> Job:
    """A job in `folder`, which contains the inputs of `add_colour`."""
    job = job_of(folder, **({"student": STUDENT, "source": READS} | spec))
    job.values["teacher"] = job.values["teacher"] | {"input": COLOUR}
    return job


def add_colour(folder: Path) -> None:
    """Add to the inputs in `folder` a second image of each sample, tinted by its class, a teacher trained on it for a few
    steps, and a test split that equals the training split."""
    path = folder / "inputs" / "dataset.safetensors"
    data = load_file(path)
    image, label = data["train.image"], data["train.label"]
    tint = torch.tensor([[90, 0, 0], [0, 90, 0], [0, 0, 90], [60, 60, 0]], dtype=torch.uint8)
    colour = (image // 2).expand(-1, 3, -1, -1) + tint[label][:, :, None, None]
    data = {"train.image": image, "train.label": label, "train.privileged": colour.contiguous()}
    data |= {name.replace("train", "test"): value.clone() for name, value in data.items()}
    save_file(data, path, {"class_names": '["0", "1", "2", "3"]'})
    torch.manual_seed(12)
    teacher = networks.build("lenet5", 4, read_contract(COLOUR), {})
    optimizer = torch.optim.Adam(teacher.parameters(), lr=3e-3)
    for _ in range(40):
        optimizer.zero_grad()
        torch.nn.functional.cross_entropy(teacher(normalised(colour, COLOUR)), label).backward()
        optimizer.step()
    save_file(teacher.state_dict(), folder / "inputs" / "teacher.safetensors")


def normalised(image: Tensor, contract: dict) -> Tensor:
    """A network's input for uint8 images, written slowly."""
    mean, std = (torch.tensor(contract[name])[:, None, None] for name in ("mean", "std"))
    return (image.float() / 255 - mean) / std
