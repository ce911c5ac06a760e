import random

import numpy
import pytest
import torch

from worker.distillation.randomness import random_state, restore_random_state, seed_all

CPU = torch.device("cpu")


def draws():
    return [random.random(), float(numpy.random.rand()), float(torch.rand(()))]


def test_all_generators_continue_from_the_restored_state():
    seed_all(5)
    state = random_state(CPU)
    drawn = draws()
    seed_all(6)
    restore_random_state(state, CPU)
    assert draws() == drawn


def test_only_the_generator_of_the_runs_gpu_is_read(monkeypatch):
    gpu, asked = torch.device("cuda:1"), []
    monkeypatch.setattr(torch.cuda, "get_rng_state", lambda device: asked.append(device) or torch.ones(3))
    monkeypatch.setattr(torch.cuda, "set_rng_state", lambda state, device: asked.append((device, state.tolist())))
    state = random_state(gpu)
    restore_random_state(state, gpu)
    assert asked == [gpu, (gpu, [1.0, 1.0, 1.0])]
    restore_random_state(state, CPU)
    assert len(asked) == 2


@pytest.mark.parametrize("device", ["cpu", "cuda"])
def test_a_state_contains_a_gpu_only_if_the_run_uses_one(monkeypatch, device):
    monkeypatch.setattr(torch.cuda, "get_rng_state", lambda device: torch.ones(3))
    assert ("cuda" in random_state(torch.device(device))) == (device == "cuda")
