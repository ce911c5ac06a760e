"""BatchNorm statistics after rounding: what is measured, and what a correction restores."""

import copy

import torch
from torch import nn

from worker.distillation.compression.statistics import correct, moments_of


def network() -> nn.Sequential:
    torch.manual_seed(0)
    made = nn.Sequential(
        nn.Conv2d(3, 6, 3), nn.BatchNorm2d(6), nn.ReLU(), nn.Conv2d(6, 4, 3), nn.BatchNorm2d(4), nn.Flatten(), nn.Linear(64, 3)
    )  # fmt: skip
    made.train()
    for _ in range(40):
        made(torch.randn(32, 3, 8, 8))
    return made.eval()


def test_moments_are_those_of_the_inputs() -> None:
    own, images = network(), torch.randn(200, 3, 8, 8)
    state = copy.deepcopy(own.state_dict())
    found = moments_of(own, images)
    first = own[0](images)
    torch.testing.assert_close(found["1"][0].float(), first.mean((0, 2, 3)).detach())
    torch.testing.assert_close(found["1"][1].float(), first.var((0, 2, 3), unbiased=False).detach())
    assert all(torch.equal(tensor, state[name]) for name, tensor in own.state_dict().items())
    assert not any(module.training for module in own.modules())


def test_nothing_changes_without_a_difference() -> None:
    own, images = network(), torch.randn(150, 3, 8, 8)
    state = copy.deepcopy(own.state_dict())
    found = moments_of(own, images)
    correct(own, found, moments_of(own, images))
    assert all(torch.equal(tensor, state[name]) for name, tensor in own.state_dict().items())


def test_a_shift_of_the_weights_is_made_up_for() -> None:
    """Weights and a bias that BatchNorm would normalise away in training change nothing after the correction."""
    own, images = network(), torch.randn(300, 3, 8, 8)
    changed = copy.deepcopy(own)
    with torch.no_grad():
        changed[0].weight *= 1.3
        changed[0].bias += 0.4
        changed[3].weight *= 0.8
        expected = own(images)
        assert float((changed(images) - expected).norm() / expected.norm()) > 0.1
        correct(changed, moments_of(own, images), moments_of(changed, images))
        given = changed(images)
    assert float((given - expected).norm() / expected.norm()) < 0.03
