"""The generator's losses against their formulas, written slowly."""

import math

import pytest
import torch
from torch import Tensor

from worker.distillation.synthesis import losses


@pytest.fixture
def logits() -> Tensor:
    return torch.randn(6, 4, generator=torch.Generator().manual_seed(0), dtype=torch.float64).requires_grad_(True)


def slow_one_hot(logits: Tensor) -> Tensor:
    rows = [-torch.log(torch.exp(row[row.argmax()]) / torch.exp(row).sum()) for row in logits]
    return sum(rows) / len(rows)


def slow_entropy(logits: Tensor) -> Tensor:
    p = sum(torch.exp(row) / torch.exp(row).sum() for row in logits) / len(logits)
    return sum(share * torch.log10(share) for share in p)


@pytest.mark.parametrize(("fast", "slow"), [(losses.one_hot, slow_one_hot), (losses.information_entropy, slow_entropy)])
def test_value_and_gradient_equal_the_formula(fast, slow, logits):
    torch.testing.assert_close(fast(logits), slow(logits))
    (gradient,), (expected,) = (torch.autograd.grad(function(logits), logits) for function in (fast, slow))
    torch.testing.assert_close(gradient, expected)


def test_activation_rewards_large_features_of_either_sign(logits):
    assert losses.activation(torch.tensor([[1.0, -3.0], [0.0, 2.0]])).item() == -1.5
    (gradient,) = torch.autograd.grad(losses.activation(logits), logits)
    torch.testing.assert_close(gradient, -logits.detach().sign() / logits.numel())


def slow_adversarial(student: Tensor, teacher: Tensor) -> Tensor:
    away = size = 0.0
    for mine, its in zip(student, teacher, strict=True):
        for k in range(len(its)):
            away = away + abs((mine[k] - mine.mean()) - (its[k] - its.mean()))
            size = size + abs(its[k] - its.mean())
    return -away / size


def test_adversarial_equals_the_formula_for_both_networks(logits):
    student = (logits.detach().flip(0) * 0.3 + 1).requires_grad_(True)
    fast, slow = losses.adversarial(student, logits), slow_adversarial(student, logits)
    torch.testing.assert_close(fast, slow)
    for mine, its in zip(*(torch.autograd.grad(loss, (student, logits)) for loss in (fast, slow)), strict=True):
        torch.testing.assert_close(mine, its)


def test_adversarial_knows_neither_shift_nor_scale(logits):
    student = logits.flip(0)
    expected = losses.adversarial(student, logits)
    torch.testing.assert_close(losses.adversarial(7 * student + 3, 7 * logits - 5), expected)
    assert losses.adversarial(logits + 2, logits).item() == pytest.approx(0, abs=1e-12)
    assert losses.adversarial(student, torch.zeros_like(logits)).isfinite()


@pytest.mark.parametrize("classes", [2, 10, 100])
def test_entropy_lies_between_the_balanced_and_the_collapsed_batch(classes):
    balanced, collapsed = 50 * torch.eye(classes), torch.zeros(classes, classes)
    collapsed[:, 0] = 50
    assert losses.information_entropy(balanced).item() == pytest.approx(-math.log10(classes), abs=1e-6)
    assert losses.information_entropy(collapsed).item() == pytest.approx(0, abs=1e-6)


@pytest.mark.parametrize("scale", [1e2, 1e4, 1e30])
def test_entropy_stays_finite_when_a_probability_underflows(scale):
    logits = torch.tensor([[scale, 0.0, -scale], [scale, -scale, 0.0]], requires_grad=True)
    loss = losses.information_entropy(logits)
    loss.backward()
    assert loss.isfinite()
    assert logits.grad.isfinite().all()
