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


def test_adversarial_is_minus_the_mean_distance(logits):
    other = torch.zeros_like(logits).requires_grad_(True)
    loss = losses.adversarial(other, logits)
    assert loss.item() == pytest.approx(-logits.abs().mean().item())
    torch.testing.assert_close(
        *(sign * grad for sign, grad in zip((1, -1), torch.autograd.grad(loss, (logits, other)), strict=True))
    )


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
