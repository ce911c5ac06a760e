"""Pretrained weights in the operator's folder, from a job's submission to its student."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from distillery_client.errors import InvalidRequest, JobEnded
from tests.integration.whole import INPUT, Whole
from worker.distillation import networks
from worker.distillation.contract import InputContract

NETWORK = "timm/test_resnet"
FILE = "test_resnet.r160_in1k.safetensors"
SPEC: dict[str, Any] = {
    "student": {"network": NETWORK, "input": INPUT, "initial_weights": "pretrained"},
    "training": {"steps": 1, "batch_size": 8, "learning_rate": 1e-30, "weight_decay": 0.0},
    "exports": ["safetensors"],
}


@pytest.mark.slow
def test_a_student_and_a_teacher_begin_with_the_operators_weights(tmp_path: Path, inputs: Path):
    torch.manual_seed(3)
    given = networks.build(NETWORK, 1000, InputContract(3, 16, 16, (0.5,) * 3, (0.25,) * 3)).state_dict()
    weights = tmp_path / "weights"
    with Whole(tmp_path / "data", weights=str(weights)) as whole, whole.client() as client:
        spec = SPEC | {"dataset": client.datasets.send(inputs / "images.npz")["id"]}
        unfilled = client.jobs.submit(spec)["id"]
        with pytest.raises(JobEnded, match=FILE):
            client.jobs.wait(unfilled, 120)
        (problem,) = client.jobs.get(unfilled)["error"]["errors"]
        assert problem["pointer"] == "/student/initial_weights"

        weights.mkdir()
        with pytest.raises(InvalidRequest) as refused:
            client.jobs.submit(spec)
        assert [(each["pointer"], FILE in each["message"]) for each in refused.value.errors] == [
            ("/student/initial_weights", True)
        ]
        save_file(given, weights / FILE)
        teacher = {"network": NETWORK, "initial_weights": "pretrained"}
        job = client.jobs.submit(spec | {"teacher": teacher})["id"]
        ended = client.jobs.wait(job, 240)
        assert ended["status"] == "succeeded", ended
        for name in ("student", "teacher"):
            client.artifacts.download(job, f"{name}.safetensors", tmp_path)
            state = load_file(tmp_path / f"{name}.safetensors")
            assert torch.equal(state["layer1.0.conv1.weight"], given["layer1.0.conv1.weight"])
            assert state["fc.weight"].shape[0] == 4
        client.artifacts.download(job, "report.json", tmp_path)
        assert FILE in json.loads((tmp_path / "report.json").read_text())["initial_weights"]
