"""Every name of the catalogue, in its own job, which succeeds through the whole service; those of maps are in `test_map_jobs.py`."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from safetensors.torch import save_file

from distillery_client import Client, errors, statistics
from models.spec.catalogue import known
from tests.integration.whole import INPUT, Whole
from worker.distillation import networks
from worker.distillation.contract import read_contract

OUTPUTS = {"classification": 4, "multi_label": 4, "regression": 3, "embedding": 8}
TEACHER, STUDENT = "resnet14_cifar", "resnet8_cifar"
TRAINING = {"steps": 8, "batch_size": 16}
LOSSES = {
    "classification": F.cross_entropy,
    "multi_label": lambda logits, y: F.binary_cross_entropy_with_logits(logits, y.float()),
    "regression": F.mse_loss,
    "embedding": F.cross_entropy,
}
SMALL = {
    "generator_batch": 16, "generator_width": 8, "latent": 8, "pool_images": 64, "iterations": 2, "rounds": 2,
    "initial_rounds": 1, "initial_generator_steps": 2,
}  # fmt: skip
"""Parameters that make a source cheap, used if a source has them."""

ALONE = {"teacher": None, "student": {"network": STUDENT, "input": INPUT}}
OF_OBJECTIVE: dict[str, dict[str, Any]] = {
    "mutual": {"procedure": "mutual", **ALONE},
    "privileged": {
        "source": {"name": "dataset", "teacher_reads": "privileged"},
        "student": {"network": STUDENT, "input": INPUT},
    },
    "multi_level": {"source": {"name": "dataset", "augmentation": "shift"}},
}
OF_PROCEDURE: dict[str, dict[str, Any]] = {
    "architecture_search": {
        "procedure": {"trials": 2, "space": [{"network": "mlp", "options": {"hidden": [[8], [16]]}}]},
        "training": {**TRAINING, "steps": 20, "validation_fraction": 0.25},
    },
    "apprentice": {"transforms": ["quantise"]},
    "assistant": {"procedure": {"assistants": [{"network": "resnet8_cifar"}]}},
    "mutual": {**ALONE, "objectives": ["cross_entropy", "mutual"]},
    "route": {"procedure": {"anchors": 2}, **ALONE, "training": {"epochs": 2, "batch_size": 32}},
    "source_trials": {
        "procedure": {"sources": ["noise"], "trial_fraction": 0.5, "least_estimate": 0.0},
        "source": {
            "name": "procedural",
            "generator_batch": 16,
            "pool_images": 64,
            "first_batches": 1,
            "family_images": 16,
        },
        "dataset": None,
    },
    "two_stage": {"procedure": {"preset": "fitnets"}},
}
"""Extra parts of the spec that a name needs. Otherwise jobs are built from the catalogue."""


class Scene:
    """A service with a teacher and a dataset for every task."""

    def __init__(self, client: Client, folder: Path):
        self.client = client
        self.dataset: dict[str, str] = {}
        self.teacher: dict[str, str] = {}
        for task, outputs in OUTPUTS.items():
            path, labels = _dataset(folder, task)
            self.dataset[task] = client.datasets.send(path, options={"labels": labels})["id"]
            self.teacher[task] = self._teacher(folder, task, outputs)
            if task == "classification":
                self.files = {"statistics": self._statistics(folder)}

    def _teacher(self, folder: Path, task: str, outputs: int) -> str:
        torch.manual_seed(3)
        network = networks.build(TEACHER, outputs, read_contract(INPUT), {})
        images = np.load(folder / f"{task}.npz")
        x = (torch.from_numpy(images["x_train"][:, None]).float() / 255 - 0.5) / 0.25
        y = torch.from_numpy(images["y_train"])
        optimizer = torch.optim.Adam(network.parameters(), lr=3e-3)
        for _ in range(25):
            optimizer.zero_grad()
            LOSSES[task](network(x), y).backward()
            optimizer.step()
        self.network, self.batches = network.eval(), [(x, y)]
        path = folder / f"{task}.safetensors"
        save_file(network.state_dict(), path)
        return str(self.client.teachers.send(path, network=TEACHER, classes=outputs, input=INPUT)["id"])

    def _statistics(self, folder: Path) -> str:
        path = folder / "statistics.safetensors"
        statistics.write(path, statistics.collect(self.network, self.batches, classes=OUTPUTS["classification"]))
        return str(self.client.files.send(path, kind="statistics")["id"])

    def job(self, task: str, **more: Any) -> dict[str, Any]:
        own = {"teacher": self.teacher[task], "dataset": self.dataset[task], "task": task}
        usual = {"student": {"network": STUDENT}, "training": TRAINING, "exports": ["safetensors"]}
        return {**usual, **own, **more}


def jobs(scene: Scene) -> Iterator[tuple[str, dict[str, Any]]]:
    """One job per name, and one per task if an objective suits several."""
    for name, entry in known("objectives").items():
        for task in OUTPUTS.keys() & set(entry["needs"]["tasks"]):
            yield f"{name}, {task}", scene.job(task, **{"objectives": [name], **OF_OBJECTIVE.get(name, {})})
    for name in known("procedures"):
        more = OF_PROCEDURE.get(name, {})
        yield name, scene.job("classification", **{**more, "procedure": {"name": name, **more.get("procedure", {})}})
    for name, entry in known("sources").items():
        parameters = entry["parameters"]["properties"]
        source = {"name": name} | {key: value for key, value in SMALL.items() if key in parameters}
        source |= {kind: scene.files[kind] for kind in entry["needs"]["files"]}
        dataset = scene.dataset["classification"] if entry["needs"]["dataset"] else None
        yield name, scene.job("classification", source=source, dataset=dataset)
    for name, entry in known("transforms").items():
        exports = ["safetensors", "packed", "huffman"] if entry["encodes"] else ["safetensors"]
        yield name, scene.job("classification", transforms=[name], exports=exports)
    for task in OUTPUTS:
        yield task, scene.job(task)


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_a_job_with_every_name_succeeds(tmp_path: Path):
    with Whole(tmp_path / "data", checkpoint_seconds="30") as whole, whole.client() as client:
        scene = Scene(client, tmp_path)
        submitted: dict[str, str] = {}
        failed: dict[str, Any] = {}
        for name, spec in jobs(scene):
            try:
                submitted[name] = client.jobs.submit(spec)["id"]
            except errors.Refused as refused:
                failed[name] = refused.errors
        for name, job in submitted.items():
            try:
                client.jobs.wait(job, 800)
            except errors.JobEnded as ended:
                failed[name] = str(ended)
        assert failed == {}
        assert len(submitted) > 60


def _dataset(folder: Path, task: str) -> tuple[Path, str]:
    draw = np.random.default_rng(5)
    label = np.arange(96) % 4
    image = draw.integers(0, 120, (96, 16, 16), dtype=np.uint8)
    for row, name in zip(image, label, strict=True):
        row[4 * name : 4 * name + 4] += 120
    truth: dict[str, Any] = {
        "multi_label": np.eye(4, dtype=np.int64)[(label[:, None] + np.arange(2)) % 4].sum(axis=1),
        "regression": np.stack([label, -label, label**2], axis=1).astype(np.float32),
    }
    y = truth.get(task, label)
    path = folder / f"{task}.npz"
    np.savez(path, x_train=image, y_train=y, x_test=image, y_test=y, privileged=image | 1, privileged_test=image | 1)
    return path, {"multi_label": "multi_label", "regression": "target"}.get(task, "class")
