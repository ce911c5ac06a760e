"""Several teachers, the student of a job, and a teacher that is trained first: whole services and the real engine."""

import json
from pathlib import Path
from typing import Any

import pytest
from safetensors.torch import load_file, save_file

from distillery_client import Client, DistilleryError, errors
from tests.integration.whole import INPUT, TEACHER, Whole

SPEC: dict[str, Any] = {
    "student": {"network": "lenet5_half"},
    "training": {"steps": 60, "batch_size": 32, "learning_rate": 0.01},
    "exports": ["safetensors"],
}
BRIGHTER = INPUT | {"mean": [0.0], "std": [0.5]}


def report_of(client: Client, job: str, folder: Path) -> dict[str, Any]:
    ended = client.jobs.wait(job, 120)
    assert ended["status"] == "succeeded", ended
    client.artifacts.download(job, "report.json", folder)
    return dict(json.loads((folder / "report.json").read_text()))


def second_teacher(inputs: Path, folder: Path) -> Path:
    """The same network for images with another normalisation, which its first layer undoes."""
    state = load_file(inputs / "teacher.safetensors")
    # ours reads (x - 0.5) / 0.25, this one x / 0.5: ours is twice this one, less 2
    state["conv1.bias"] = state["conv1.bias"] - 2 * state["conv1.weight"].sum((1, 2, 3))
    state["conv1.weight"] = 2 * state["conv1.weight"]
    save_file(state, folder / "second.safetensors")
    return folder / "second.safetensors"


@pytest.mark.slow
def test_who_may_teach(tmp_path: Path, inputs: Path):
    with Whole(tmp_path / "data") as whole, whole.client() as client:
        one = client.teachers.send(inputs / "teacher.safetensors", **TEACHER)["id"]
        two = client.teachers.send(second_teacher(inputs, tmp_path), **(TEACHER | {"input": BRIGHTER}))["id"]
        data = {"dataset": client.datasets.send(inputs / "images.npz")["id"]}

        both = client.jobs.submit(SPEC | data | {"teacher": [one, two]})["id"]
        waiting = client.jobs.submit(SPEC | data | {"teacher": both})
        assert waiting["status"] == "queued" and f"waits for the end of {both}" in waiting["reason"]
        with pytest.raises(DistilleryError, match="uses this teacher"):
            client.teachers.delete(one)
        report = report_of(client, both, tmp_path)
        assert [member["id"] for member in report["teacher"]["members"]] == [one, two]
        assert report["spec"]["teacher"]["temperature"] == 4.0
        assert report["evaluation"]["teacher"]["accuracy"] > 0.9

        taught = report_of(client, waiting["id"], tmp_path)
        assert (taught["teacher"]["id"], taught["teacher"]["network"]) == (both, "lenet5_half")
        assert taught["evaluation"]["teacher"]["accuracy"] == report["evaluation"]["student"]["accuracy"]

        student = {"network": "lenet5_half", "input": INPUT}
        first = {"network": "lenet5", "training": {"epochs": 10}}
        trained = client.jobs.submit(SPEC | data | {"teacher": first, "student": student})["id"]
        report = report_of(client, trained, tmp_path)
        assert report["teacher"]["network"] == "lenet5" and report["kept"][0]["name"] == "teacher"
        assert "teacher.safetensors" in {artifact["name"] for artifact in client.artifacts.list(trained)}
        phases = client.jobs.get(trained)["phases"]
        assert "training_teacher" in phases and "distilling" in phases


@pytest.mark.slow
def test_a_student_that_ships_more_than_a_network_cannot_teach(tmp_path: Path, inputs: Path):
    with Whole(tmp_path / "data") as whole, whole.client() as client:
        one = client.teachers.send(inputs / "teacher.safetensors", **TEACHER)["id"]
        spec = SPEC | {"dataset": client.datasets.send(inputs / "images.npz")["id"]}
        reuse = client.jobs.submit(spec | {"teacher": one, "objectives": ["similarity_head"]})["id"]
        pupil = client.jobs.submit(spec | {"teacher": reuse})["id"]
        assert client.jobs.wait(reuse, 120)["status"] == "succeeded"
        with pytest.raises(errors.JobEnded):
            client.jobs.wait(pupil, 60)
        [error] = client.jobs.get(pupil)["error"]["errors"]
        assert error["pointer"] == "/teacher" and "layers added by similarity_head cannot be loaded" in error["message"]
        client.artifacts.download(reuse, "student.safetensors", tmp_path)
        with pytest.raises(DistilleryError, match="projector and its teacher's classifier"):
            client.teachers.send(tmp_path / "student.safetensors", **(TEACHER | {"network": "lenet5_half"}))
