"""Every transform through the whole service, without data, in born-again generations and on two devices, while its worker is killed."""

from pathlib import Path
from typing import Any

import pytest

from models.spec.catalogue import known
from tests.integration.whole import TEACHER, Whole, eventually
from tests.worker.distillation.transforms.test_each import DAFL, EACH

EXPORTS = {True: ["safetensors", "packed", "huffman"], False: ["safetensors"]}


def specs(teacher: str, dataset: str) -> dict[str, dict[str, Any]]:
    """Three jobs for each transform, by name."""
    found = {}
    for name, transform in EACH.items():
        usual = {
            "teacher": teacher, "student": {"network": "lenet5_half"}, "transforms": [transform],
            "training": {"steps": 12, "batch_size": 32, "optimizer": "sgd", "learning_rate": 0.01},
            "exports": EXPORTS[known("transforms")[name]["encodes"]],
        }  # fmt: skip
        kd = {"objectives": ["kd"]}
        found[f"{name} without data"] = {**usual, **kd, "source": DAFL}
        born_again = {"name": "born_again", "generations": 2}
        found[f"{name} in generations"] = {**usual, "dataset": dataset, "procedure": born_again}
        found[f"{name} on two devices"] = {**usual, "dataset": dataset, "resources": {"gpus": 2}}
    return found


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_each_transform_in_a_service_that_is_killed(tmp_path: Path, inputs: Path) -> None:
    with Whole(tmp_path / "data", devices="2", engine_threads="2") as whole, whole.client() as client:
        teacher = client.teachers.send(inputs / "teacher.safetensors", **TEACHER)["id"]
        dataset = client.datasets.send(inputs / "images.npz")["id"]
        jobs = {name: client.jobs.submit(spec)["id"] for name, spec in specs(teacher, dataset).items()}

        def ended() -> int:
            return sum(client.jobs.get(job)["status"] == "succeeded" for job in jobs.values())

        for count in (1, len(jobs) // 2):
            eventually(lambda count=count: ended() >= count, f"{count} jobs have succeeded", 900)
            whole.kill("distill")
            whole.start("distill")
        found = {name: client.jobs.wait(job, 900)["status"] for name, job in jobs.items()}
        assert set(found.values()) == {"succeeded"}
        for name, job in jobs.items():
            names = {each["name"] for each in client.artifacts.list(job)}
            assert "student.safetensors" in names and "report.json" in names, name
