"""Copies between CPU and GPU."""

import pytest
import torch

from worker.distillation.data.transfers import copied_to_cpu, sent

NEEDS_GPU = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU: copies from and to it")


def state_on(device: str) -> dict:
    image = torch.arange(24.0, device=device).view(1, 2, 3, 4).contiguous(memory_format=torch.channels_last)
    return {"a": image, "b": [image[0, 0], (torch.tensor(3, device=device), "text", None)], "c": {"d": 1.5}}


@pytest.mark.parametrize("device", ["cpu", pytest.param("cuda", marks=NEEDS_GPU)])
def test_a_copy_is_contiguous_and_later_changes_do_not_reach_it(device):
    state = state_on(device)
    copied = copied_to_cpu(state)
    expected = state_on("cpu")
    state["a"].zero_()
    assert torch.equal(copied["a"], expected["a"]) and copied["a"].is_contiguous()
    assert torch.equal(copied["b"][0], expected["b"][0])
    assert copied["b"][1][0] == 3 and copied["b"][1][1:] == ("text", None) and copied["c"] == {"d": 1.5}


@pytest.mark.parametrize("device", ["cpu", pytest.param("cuda", marks=NEEDS_GPU)])
def test_what_is_sent_arrives(device):
    tensor = torch.arange(10)
    arrived = sent(tensor, torch.device(device))
    assert arrived.device.type == device and torch.equal(arrived.cpu(), tensor)
