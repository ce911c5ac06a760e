"""Programs over HTTP: packed and uploaded by the client, inspected, checked, distilled, and taught by their students."""

from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from distillery_client import Client, pack
from tests.integration.whole import INPUT, TEACHER, Whole
from worker.distillation import networks
from worker.distillation.contract import read_contract
from worker.distillation.programs import load

SPEC: dict[str, Any] = {
    "objectives": [{"name": "cross_entropy"}, {"name": "kd"}, {"name": "nst"}],
    "training": {"steps": 30, "batch_size": 32, "learning_rate": 0.01},
    "exports": ["safetensors", "program"],
}


def packed(name: str, path: Path, inputs: Path | None, student: bool) -> Path:
    """A named network as a program, which nothing says any more that it has a name."""
    network = networks.build(name, TEACHER["classes"], read_contract(INPUT))
    if inputs is not None:
        network.load_state_dict(load_file(inputs / "teacher.safetensors"))
    pack(network, path, **INPUT, student=student)
    return path


def artifacts_of(client: Client, job: str, folder: Path) -> dict[str, Any]:
    ended = client.jobs.wait(job, 240)
    assert ended["status"] == "succeeded", ended
    client.artifacts.download(job, "student.program.safetensors", folder)
    return ended


@pytest.mark.slow
def test_a_program_is_packed_uploaded_distilled_and_its_student_teaches(tmp_path: Path, inputs: Path):
    with Whole(tmp_path / "data") as whole, whole.client() as client:
        teacher = client.teachers.send(packed(TEACHER["network"], tmp_path / "net.safetensors", inputs, student=False))
        parameters = sum(tensor.numel() for tensor in load_file(inputs / "teacher.safetensors").values())
        assert (teacher["network"], teacher["findings"]["parameters"]) == ("program", parameters)
        assert teacher["findings"]["multiply_adds"] > 0 and teacher["findings"]["stages"]
        student = client.files.send(
            packed("lenet5_half", tmp_path / "half.safetensors", None, student=True), kind="program"
        )
        data = {"dataset": client.datasets.send(inputs / "images.npz")["id"]}

        wanted = {"teacher": teacher["id"], "student": {"network": "program", "program": student["id"]}}
        first = client.jobs.submit(SPEC | data | wanted)["id"]
        second = client.jobs.submit(SPEC | data | wanted | {"teacher": first})["id"]
        artifacts_of(client, first, tmp_path)
        given = load(tmp_path / "student.program.safetensors").eval()
        assert (
            given(torch.zeros(1, *(INPUT[name] for name in ("channels", "height", "width")))).shape[1]
            == TEACHER["classes"]
        )
        artifacts_of(client, second, tmp_path / "data")
        again = client.teachers.send(tmp_path / "student.program.safetensors")
        assert again["status"] == "ready" and again["network"] == "program"
