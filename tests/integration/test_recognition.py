"""A teacher that nobody described: recognised by the images of a dataset, over HTTP, by the real engine."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from distillery_client import Client, errors
from tests.integration.whole import Whole


def chain(inputs: Path, folder: Path) -> Path:
    """The weights of a chain that the catalogue lacks, trained on the dataset, under names that tell nothing."""
    arrays = np.load(inputs / "images.npz")
    image, label = torch.from_numpy(arrays["x_train"])[:, None].float() / 255, torch.from_numpy(arrays["y_train"])
    torch.manual_seed(3)
    network = nn.Sequential(
        nn.Conv2d(1, 6, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2), nn.Conv2d(6, 9, 3), nn.ReLU(), nn.MaxPool2d(2),
        nn.Flatten(), nn.Linear(81, 4),
    )  # fmt: skip
    optimizer = torch.optim.Adam(network.parameters(), lr=1e-2)
    for _ in range(80):
        optimizer.zero_grad()
        nn.functional.cross_entropy(network(image), label).backward()
        optimizer.step()
    state = {f"part{name}": tensor for name, tensor in network.state_dict().items()}
    torch.save({"epoch": 80, "weights": state}, folder / "chain.pt")
    return folder / "chain.pt"


@pytest.mark.slow
def test_a_teacher_is_recognised_once_its_dataset_is_ready(tmp_path: Path, inputs: Path) -> None:
    with Whole(tmp_path / "data") as whole, whole.client() as client:
        dataset = client.datasets.create(name="rows")
        named = sent(client, inputs / "teacher.safetensors", dataset["id"])
        unknown = sent(client, chain(inputs, tmp_path), dataset["id"])
        assert dataset["id"] in client.teachers.get(named)["reason"]
        client.datasets.upload(dataset, inputs / "images.npz")

        found = client.teachers.wait(named, 120)
        assert (found["network"], found["classes"], found["input"]["height"]) == ("lenet5", 4, 16)
        assert found["findings"]["recognised"]["accuracy"] > 0.9
        found = client.teachers.wait(unknown, 240)
        assert found["network"] == "layers" and found["findings"]["recognised"]["accuracy"] > 0.9
        assert found["options"]["layers"] == found["findings"]["recognised"]["layers"]

        ready = client.teachers.send(chain(inputs, tmp_path), network=found_as(found), input=found["input"])
        assert ready["findings"]["parameters"] == found["findings"]["parameters"]
        spec: dict[str, Any] = {"teacher": unknown, "dataset": dataset["id"], "student": {"network": "lenet5_half"}}
        job = client.jobs.submit(spec | {"training": {"steps": 20}, "exports": ["safetensors"]})
        assert client.jobs.wait(job["id"], 120)["status"] == "succeeded"

        gone = client.datasets.create(name="gone")
        lost = sent(client, inputs / "teacher.safetensors", gone["id"])
        (tmp_path / "bad").write_bytes(b"no dataset")
        client.datasets.upload(gone, tmp_path / "bad")
        with pytest.raises(errors.Rejected, match="the input cannot be used"):
            client.teachers.wait(lost, 60)


def sent(client: Client, file: Path, dataset: str) -> str:
    teacher = client.teachers.create(name=file.stem, dataset=dataset)
    client.teachers.upload(teacher, file)
    return str(teacher["id"])


def found_as(teacher: dict[str, Any]) -> dict[str, Any]:
    """The layers that were found, as a user corrects them and sends them back."""
    return {"layers": teacher["findings"]["recognised"]["layers"]}
