"""DIST against Pearson's correlation written slowly, and its invariants."""

import pytest
import torch

from tests.worker.distillation.trial import objective_of
from worker.distillation.losses.logits import standardise
from worker.distillation.objectives.logits.dist import correlation_distance
from worker.distillation.step import Batch, Outputs, Step

B, K = 8, 5


@pytest.fixture
def logits():
    torch.manual_seed(0)
    return torch.randn(2, B, K, dtype=torch.float64).mul(2).unbind()


def dist(student, teacher, **values):
    step = Step(Batch(torch.zeros(len(student), 1, 1, 1)), Outputs(student), Outputs(teacher))
    return objective_of("dist", **values)(step)


def slow(student, teacher):
    """Mean over rows of one minus Pearson's correlation."""
    distances = []
    for u, v in zip(student.tolist(), teacher.tolist(), strict=True):
        mean_u, mean_v = sum(u) / len(u), sum(v) / len(v)
        covariance = sum((x - mean_u) * (y - mean_v) for x, y in zip(u, v, strict=True))
        variances = sum((x - mean_u) ** 2 for x in u) * sum((y - mean_v) ** 2 for y in v)
        distances.append(1 - covariance / variances**0.5)
    return torch.tensor(sum(distances) / len(distances), dtype=torch.float64)


@pytest.mark.parametrize("temperature", [1.0, 4.0])
def test_is_the_slow_formula(logits, temperature):
    s, t = ((x / temperature).softmax(1) for x in logits)
    scale = temperature**2
    closed = {"inter": 0.5 * scale * slow(s, t), "intra": 3 * scale * slow(s.T, t.T)}
    torch.testing.assert_close(dist(*logits, temperature=temperature, beta=0.5, gamma=3.0), closed)


def test_a_copy_without_the_temperature_is_not(logits):
    without = slow(*(x.softmax(1) for x in logits))  # as in the authors' code for segmentation
    assert not torch.allclose(dist(*logits, temperature=4.0)["inter"], without, rtol=1e-2)


@pytest.mark.parametrize("dim", [0, 1])
def test_epsilon_is_added_to_the_product_of_the_norms(dim):
    rows = [[0.0, 2e-4, 1e-4], [1e-4, 3e-4, 0.0], [2e-4, 0.0, 1e-4]]  # as of classes that neither network predicts
    student, teacher = torch.tensor(rows).double(), torch.tensor(rows[::-1]).double()
    distances = []
    for u, v in zip(*((x if dim else x.T).tolist() for x in (student, teacher)), strict=True):
        u, v = ([x - sum(each) / len(each) for x in each] for each in (u, v))
        lengths = [sum(x * x for x in each) ** 0.5 for each in (u, v)]
        distances.append(1 - sum(x * y for x, y in zip(u, v, strict=True)) / (lengths[0] * lengths[1] + 1e-8))
    torch.testing.assert_close(correlation_distance(student, teacher, dim).item(), sum(distances) / 3)


@pytest.mark.parametrize("dim", [0, 1])
def test_ignores_scale_and_shift_and_is_two_when_turned_round(logits, dim):
    s, t = (x.softmax(1) for x in logits)
    size = [B, K]
    size[dim] = 1
    torch.manual_seed(1)
    scale, shift = torch.rand(size, dtype=torch.float64) + 0.1, torch.randn(size, dtype=torch.float64)
    zero = torch.zeros((), dtype=torch.float64)
    for one, expected in (
        (scale * s + shift, correlation_distance(s, t, dim)), (scale * t + shift, zero), (shift - scale * t, zero + 2)
    ):  # fmt: skip
        torch.testing.assert_close(correlation_distance(one, t, dim), expected, rtol=0, atol=1e-6)
    assert 0 <= correlation_distance(s, t, dim) <= 2


def test_constant_predictions_have_a_distance_of_one_and_no_gradient():
    student = torch.full((B, K), 1 / K, requires_grad=True)
    torch.manual_seed(2)
    value = correlation_distance(student, torch.randn(B, K).softmax(1), 0)
    value.backward()
    assert value == 1
    assert student.grad.isfinite().all()
    alone = torch.randn(1, K, requires_grad=True)
    value = sum(dist(alone, torch.randn(1, K)).values())
    value.backward()
    assert value.isfinite()
    assert alone.grad.isfinite().all()


def test_two_classes_have_a_gradient_over_samples_alone(logits):
    student, teacher = (x[:, :2].clone().requires_grad_(True) for x in logits)
    over_classes = correlation_distance(student.softmax(1), teacher.detach().softmax(1), 1)
    assert torch.autograd.grad(over_classes, student)[0].abs().max() < 1e-6
    terms = dist(student, teacher.detach())
    assert terms.keys() == {"intra"}
    assert torch.autograd.grad(terms["intra"], student)[0].abs().max() > 1e-3


def test_standardised_is_dist_of_standardised_logits(logits):
    plain = dist(*(standardise(x) for x in logits))
    torch.testing.assert_close(dist(*logits, standardise=True), plain)
