"""A teacher that reads colour and a student that reads grey, through a whole service: upload, inspection, checks, job."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from distillery_client import Client, errors
from tests.integration.whole import INPUT, TEACHER, Whole
from worker.distillation import networks
from worker.distillation.contract import read_contract

COLOUR = {"channels": 3, "height": 16, "width": 16, "mean": [0.4, 0.5, 0.6], "std": [0.2, 0.25, 0.3]}
SPEC = {
    "student": {"network": "lenet5_half", "input": INPUT},
    "source": {"name": "dataset", "teacher_reads": "privileged", "augmentation": "shift"},
    "training": {"steps": 60, "batch_size": 32, "learning_rate": 0.01},
    "exports": ["safetensors"],
}


def write_two(inputs: Path, folder: Path) -> None:
    """The service's images with tinted second images, and a teacher trained on the tinted ones."""
    data = dict(np.load(inputs / "images.npz"))
    tint = np.array([[90, 0, 0], [0, 90, 0], [0, 0, 90], [60, 60, 0]], dtype=np.uint8)
    for split, name in (("train", "privileged"), ("test", "privileged_test")):
        data[name] = (data[f"x_{split}"] // 2)[..., None] + tint[data[f"y_{split}"]][:, None, None]
    np.savez(folder / "images.npz", **data)
    torch.manual_seed(12)
    teacher = networks.build("lenet5", 4, read_contract(COLOUR), {})
    optimizer = torch.optim.Adam(teacher.parameters(), lr=3e-3)
    mean, std = (torch.tensor(COLOUR[name])[:, None, None] for name in ("mean", "std"))
    x = (torch.from_numpy(data["privileged"]).permute(0, 3, 1, 2).float() / 255 - mean) / std
    for _ in range(40):
        optimizer.zero_grad()
        torch.nn.functional.cross_entropy(teacher(x), torch.from_numpy(data["y_train"])).backward()
        optimizer.step()
    save_file(teacher.state_dict(), folder / "teacher.safetensors")


def refusal(client: Client, spec: dict) -> list[str]:
    with pytest.raises(errors.Refused) as caught:
        client.jobs.submit(spec)
    return [problem["pointer"] for problem in caught.value.errors]


@pytest.mark.slow
def test_a_grey_student_learns_from_a_colour_teacher(tmp_path: Path, inputs: Path):
    write_two(inputs, tmp_path)
    with Whole(tmp_path / "data") as whole, whole.client() as client:
        teacher = client.teachers.send(tmp_path / "teacher.safetensors", **(TEACHER | {"input": COLOUR}))["id"]
        dataset = client.datasets.send(tmp_path / "images.npz")
        assert dataset["findings"]["privileged"]["channels"] == 3
        ids = {"teacher": teacher, "dataset": dataset["id"]}
        for objectives in ([{"name": "privileged", "imitation": 0.5}], ["cross_entropy", "kd", "crd"]):
            job = client.jobs.submit(SPEC | ids | {"objectives": objectives})["id"]
            ended = client.jobs.wait(job, 120)
            assert ended["status"] == "succeeded", ended
            made = tmp_path / job
            made.mkdir()
            for name in ("student.safetensors", "report.json"):
                client.artifacts.download(job, name, made)
            assert load_file(made / "student.safetensors")["conv1.weight"].shape[1] == 1
            summary = json.loads((made / "report.json").read_text())["summary"]
            assert summary["accuracy"] > 0.5 and summary["teacher_accuracy"] > 0.9

        assert refusal(client, SPEC | ids | {"student": {"network": "lenet5_half"}}) == ["/student/input"]
        other = client.datasets.send(inputs / "images.npz")["id"]
        assert refusal(client, SPEC | ids | {"dataset": other}) == ["/dataset"]
