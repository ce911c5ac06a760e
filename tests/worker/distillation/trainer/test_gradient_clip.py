"""Clipping of gradients, on real runs."""

import shutil

import pytest
import torch
from safetensors.torch import load_file

from tests.worker.distillation.killed_runs import job_of, run_whole

STEP = {"epochs": None, "steps": 1, "optimizer": "sgd", "momentum": 0.0, "weight_decay": 0.0, "schedule": "constant"}


@pytest.mark.parametrize("procedure", ["direct", "mutual"])
def test_a_long_gradient_is_scaled_to_the_given_norm(engine_inputs, tmp_path, procedure):
    def moved(name, **training):
        """How far one step of plain SGD at a learning rate of 1 moves the student: the norm of its gradient."""
        states = []
        for rate in (1e-30, 1.0):
            folder = shutil.copytree(engine_inputs, tmp_path / f"{name}{rate}")
            run_whole(job_of(folder, training=STEP | training | {"learning_rate": rate}, procedure={"name": procedure}))
            states.append(load_file(folder / "output" / "student.safetensors"))
        return torch.cat([(states[1][key] - states[0][key]).flatten() for key in states[1]]).norm().item()

    free = moved("free")
    assert moved("short", gradient_clip=free / 4) == pytest.approx(free / 4, rel=1e-2)
    assert moved("long", gradient_clip=free * 4) == pytest.approx(free, rel=1e-4)
