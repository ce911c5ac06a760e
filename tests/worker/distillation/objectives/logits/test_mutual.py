"""Mutual learning against its formula written slowly, and against public code."""

import pytest
import torch
import torch.nn.functional as F

from tests.worker.distillation.trial import objective_of
from worker.distillation.errors import SpecError
from worker.distillation.objective import BuildContext
from worker.distillation.step import Batch, Outputs, Step

B, K = 6, 5


def logits_of(networks):
    torch.manual_seed(networks)
    return [2 * torch.randn(B, K, dtype=torch.float64) for _ in range(networks)]


def mutual(own, peers, **values):
    step = Step(Batch(torch.zeros(B, 1, 1, 1)), Outputs(own), peers=tuple(map(Outputs, peers)))
    return objective_of("mutual", **values)(step)["mutual"]


def slow_kl(p, q):
    """KL(p || q), sample by sample and class by class."""
    return sum(p[b, k] * (p[b, k] / q[b, k]).log() for b in range(B) for k in range(K)) / B


@pytest.mark.parametrize("networks", [2, 3, 5])
def test_is_the_mean_divergence_from_each_peer(networks):
    own, *peers = logits_of(networks)
    slow = sum(slow_kl(peer.softmax(1), own.softmax(1)) for peer in peers) / len(peers)
    torch.testing.assert_close(mutual(own, peers), slow)


@pytest.mark.parametrize("networks", [2, 3, 5])
def test_average_is_the_divergence_from_the_mean_prediction(networks):
    own, *peers = logits_of(networks)
    mean = sum(peer.softmax(1) for peer in peers) / len(peers)
    torch.testing.assert_close(mutual(own, peers, target="average"), slow_kl(mean, own.softmax(1)))


def test_the_order_of_the_peers_does_not_matter_and_the_direction_does():
    own, one, other = logits_of(3)
    torch.testing.assert_close(mutual(own, [one, other]), mutual(own, [other, one]))
    assert not torch.isclose(mutual(own, [one]), mutual(one, [own]), rtol=1e-2)


def test_with_two_networks_both_targets_are_one():
    own, peer = logits_of(2)
    torch.testing.assert_close(mutual(own, [peer]), mutual(own, [peer], target="average"))


@pytest.mark.parametrize("networks", [3, 4, 7])
def test_with_more_the_average_is_the_smaller_for_the_divergence_is_convex(networks):
    own, *peers = logits_of(networks)
    assert mutual(own, peers, target="average") < mutual(own, peers)


@pytest.mark.parametrize("target", ["each", "average"])
def test_gradient_is_the_closed_one_and_that_of_a_sum_is_not(target):
    """`p_own - mean_l p_l`, over B: the gradient is the same for both targets."""
    own, *peers = logits_of(4)
    own.requires_grad_(True)
    (slope,) = torch.autograd.grad(mutual(own, peers, target=target), own)
    closed = (own.softmax(1) - sum(peer.softmax(1) for peer in peers) / 3).detach() / B
    torch.testing.assert_close(slope, closed)
    added = sum(F.kl_div(own.log_softmax(1), peer.softmax(1), reduction="batchmean") for peer in peers)
    assert not torch.allclose(torch.autograd.grad(added, own)[0], closed)


@pytest.mark.parametrize("target", ["each", "average"])
def test_networks_that_agree_teach_each_other_nothing(target):
    own = logits_of(1)[0].requires_grad_(True)
    value = mutual(own, [own.detach(), own.detach() + 3], target=target)
    assert value.abs() < 1e-12
    assert torch.autograd.grad(value, own)[0].abs().max() < 1e-12


def test_temperature_and_standardised_logits_are_those_of_kd():
    own, peer = logits_of(2)
    kd = Step(Batch(torch.zeros(B, 1, 1, 1)), Outputs(own), Outputs(peer))
    for values in ({"temperature": 4.0}, {"temperature": 2.0, "standardise": True}):
        torch.testing.assert_close(mutual(own, [peer], **values), objective_of("kd", **values)(kd)["kd"])


def test_refuses_to_work_alone():
    outputs = Outputs(torch.zeros(2, K))
    context = BuildContext(outputs, None, torch.nn.Identity(), None, K)
    with pytest.raises(SpecError, match="choose the procedure `mutual`"):
        objective_of("mutual").build(context)
