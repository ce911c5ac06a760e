"""The meta-generator: its inner and outer steps, against Adam and the losses written out by hand."""

import copy

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from tests.worker.distillation.sources.family import made

SETTINGS = {"iterations": 3, "shift": 0, "precision": "fp32", "one_hot_weight": 0.4, "statistics_weight": 2.0}
WITHOUT_GRADIENT = {"stem.bias", "conv1.bias", "conv2.bias", "to_image.bias"}
"""A normalisation follows, so that Adam sees only rounding errors of their gradients."""
RATE, LATENT_RATE, BETA1, BETA2 = 2e-3, 1e-2, 0.5, 0.999


class Adam:
    """arXiv:1412.6980, algorithm 1, of one tensor."""

    def __init__(self, rate: float):
        self.rate, self.t, self.m, self.v = rate, 0, 0.0, 0.0

    def moved(self, x: Tensor, gradient: Tensor) -> Tensor:
        self.t += 1
        self.m = BETA1 * self.m + (1 - BETA1) * gradient
        self.v = BETA2 * self.v + (1 - BETA2) * gradient**2
        mean, square = self.m / (1 - BETA1**self.t), self.v / (1 - BETA2**self.t)
        return x - self.rate * mean / (square.sqrt() + 1e-8)


def loss_of(image: Tensor, teacher, target: Tensor) -> Tensor:
    """0.4 times the cross-entropy, and twice the distance from the statistics of the teacher's only BatchNorm."""
    norm, x = teacher[1], teacher[0](image)
    away = (x.mean((0, 2, 3)) - norm.running_mean).norm() + (x.var((0, 2, 3), correction=0) - norm.running_var).norm()
    return 0.4 * F.cross_entropy(teacher(image), target) + 2.0 * away


def by_hand(source, meta: str) -> tuple[dict, dict]:
    """The adapted copy's and the meta-generator's weights after the current round, before its first step."""
    teacher = source.context.teacher.network
    copied, latent = copy.deepcopy(source.copy), source.latent.detach().clone()
    names = [name for name, _ in copied.named_parameters()]
    inner = {name: Adam(RATE) for name in names} | {"": Adam(LATENT_RATE)}
    sums = dict.fromkeys(names, 0.0)
    for _ in range(3):
        latent.requires_grad_(True)
        loss = loss_of(copied(latent), teacher, source.target)
        *gradients, of_latent = torch.autograd.grad(loss, [*copied.parameters(), latent])
        for (name, parameter), gradient in zip(copied.named_parameters(), gradients, strict=True):
            sums[name] = sums[name] + gradient
            parameter.data = inner[name].moved(parameter.data, gradient)
        latent = inner[""].moved(latent.detach(), of_latent)
    adapted, before = dict(copied.named_parameters()), dict(source.generator.named_parameters())
    way = sums if meta == "first_order" else {name: (before[name] - adapted[name]).detach() for name in names}
    after = {name: Adam(3 * RATE).moved(before[name].detach(), way[name]) for name in names}
    return {name: each.detach() for name, each in adapted.items()}, after


@pytest.mark.parametrize("meta", ["first_order", "reptile"])
def test_a_round_equals_the_computation_by_hand(meta):
    source = made("fast_meta", meta=meta, **SETTINGS)
    original, spied = source.begin, {}

    def begin(number: int) -> None:
        original(number)
        spied["copy"], spied["meta"] = by_hand(source, meta)

    source.begin = begin
    for number in range(3):
        source.generator_step(number, {})
    for network, expected in ((source.copy, spied["copy"]), (source.generator, spied["meta"])):
        for name in expected.keys() - WITHOUT_GRADIENT:
            parameter = network.get_parameter(name)
            torch.testing.assert_close(parameter.detach(), expected[name], atol=2e-5, rtol=1e-3)


def test_rounds_begin_with_the_meta_generator_and_it_lasts():
    source = made("fast_meta", **SETTINGS)
    first = copy.deepcopy(source.generator.state_dict())
    for number in range(3):
        source.generator_step(number, {})
        assert all(torch.equal(first[name], each) for name, each in source.generator.state_dict().items()) == (
            number < 2
        )
    learnt = copy.deepcopy(source.generator.state_dict())
    started = []
    original = source.begin
    source.begin = lambda number: (original(number), started.append(copy.deepcopy(source.copy.state_dict())))
    source.generator_step(3, {})
    assert all(torch.equal(learnt[name], each) for name, each in started[0].items())
