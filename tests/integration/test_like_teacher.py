"""Students that are like their teacher, over HTTP: of a named network, of a program, and of a student that is one."""

from pathlib import Path
from typing import Any

import pytest
from safetensors.torch import load_file

from distillery_client import Client
from tests.integration.test_programs import packed
from tests.integration.whole import TEACHER, Whole

SPEC: dict[str, Any] = {"training": {"steps": 5, "batch_size": 32}, "exports": ["safetensors"]}


def widths_of(client: Client, job: str, folder: Path) -> list[int]:
    """The convolutions' channels of a job's student."""
    ended = client.jobs.wait(job, 240)
    assert ended["status"] == "succeeded", ended
    folder.mkdir()
    client.artifacts.download(job, "student.safetensors", folder)
    weights = load_file(folder / "student.safetensors")
    return [len(tensor) for name, tensor in weights.items() if name.startswith("conv") and tensor.ndim == 4]


@pytest.mark.slow
def test_students_of_half_the_channels(tmp_path: Path, inputs: Path):
    with Whole(tmp_path / "data") as whole, whole.client() as client:
        named = client.teachers.send(inputs / "teacher.safetensors", **TEACHER)["id"]
        program = client.teachers.send(packed(TEACHER["network"], tmp_path / "net.safetensors", inputs, student=True))
        spec = SPEC | {"dataset": client.datasets.send(inputs / "images.npz")["id"]}
        half = {"like": "teacher", "width": 0.5}

        jobs = [client.jobs.submit(spec | {"teacher": each, "student": half}) for each in (named, program["id"])]
        assert [job["resolved"]["student"]["initial_weights"] for job in jobs] == ["teacher", "teacher"]
        chained = client.jobs.submit(spec | {"teacher": jobs[1]["id"], "student": half})["id"]
        found = [widths_of(client, job, tmp_path / job) for job in (*(job["id"] for job in jobs), chained)]
        assert found == [[3, 8, 60], [3, 8, 60], [2, 4, 30]]
