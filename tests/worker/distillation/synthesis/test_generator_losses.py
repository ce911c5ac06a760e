"""The generator's losses against their formulas, written slowly."""

import math

import pytest
import torch
from torch import Tensor

from worker.distillation.synthesis import generator_losses


@pytest.fixture
def logits() -> Tensor:
    return torch.randn(6, 4, generator=torch.Generator().manual_seed(0), dtype=torch.float64).requires_grad_(True)


def slow_one_hot(logits: Tensor) -> Tensor:
    rows = [-torch.log(torch.exp(row[row.argmax()]) / torch.exp(row).sum()) for row in logits]
    return sum(rows) / len(rows)


def slow_entropy(logits: Tensor) -> Tensor:
    p = sum(torch.exp(row) / torch.exp(row).sum() for row in logits) / len(logits)
    return sum(share * torch.log10(share) for share in p)


@pytest.mark.parametrize(
    ("fast", "slow"), [(generator_losses.one_hot, slow_one_hot), (generator_losses.information_entropy, slow_entropy)]
)
def test_value_and_gradient_equal_the_formula(fast, slow, logits):
    torch.testing.assert_close(fast(logits), slow(logits))
    (gradient,), (expected,) = (torch.autograd.grad(function(logits), logits) for function in (fast, slow))
    torch.testing.assert_close(gradient, expected)


def test_activation_rewards_large_features_of_either_sign(logits):
    assert generator_losses.activation(torch.tensor([[1.0, -3.0], [0.0, 2.0]])).item() == -1.5
    (gradient,) = torch.autograd.grad(generator_losses.activation(logits), logits)
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
    fast, slow = generator_losses.adversarial(student, logits), slow_adversarial(student, logits)
    torch.testing.assert_close(fast, slow)
    for mine, its in zip(*(torch.autograd.grad(loss, (student, logits)) for loss in (fast, slow)), strict=True):
        torch.testing.assert_close(mine, its)


def test_adversarial_knows_neither_shift_nor_scale(logits):
    student = logits.flip(0)
    expected = generator_losses.adversarial(student, logits)
    torch.testing.assert_close(generator_losses.adversarial(7 * student + 3, 7 * logits - 5), expected)
    assert generator_losses.adversarial(logits + 2, logits).item() == pytest.approx(0, abs=1e-12)
    assert generator_losses.adversarial(student, torch.zeros_like(logits)).isfinite()


@pytest.mark.parametrize("classes", [2, 10, 100])
def test_entropy_lies_between_the_balanced_and_the_collapsed_batch(classes):
    balanced, collapsed = 50 * torch.eye(classes), torch.zeros(classes, classes)
    collapsed[:, 0] = 50
    assert generator_losses.information_entropy(balanced).item() == pytest.approx(-math.log10(classes), abs=1e-6)
    assert generator_losses.information_entropy(collapsed).item() == pytest.approx(0, abs=1e-6)


@pytest.mark.parametrize("scale", [1e2, 1e4, 1e30])
def test_entropy_stays_finite_when_a_probability_underflows(scale):
    logits = torch.tensor([[scale, 0.0, -scale], [scale, -scale, 0.0]], requires_grad=True)
    loss = generator_losses.information_entropy(logits)
    loss.backward()
    assert loss.isfinite()
    assert logits.grad.isfinite().all()


def rows_of(student: Tensor, teacher: Tensor):
    """Pairs of predictions, by softmax written out."""
    for pair in zip(student, teacher, strict=True):
        yield tuple(torch.exp(row) / torch.exp(row).sum() for row in pair)


def slow_disagreement(student: Tensor, teacher: Tensor) -> Tensor:
    return -sum(abs(mine - its) for mine, its in zip(student.flatten(), teacher.flatten(), strict=True)) / 24


def slow_divergence(student: Tensor, teacher: Tensor) -> Tensor:
    each = [
        sum(p * (torch.log(p) - torch.log(q)) for q, p in zip(*row, strict=True)) for row in rows_of(student, teacher)
    ]
    return -sum(each) / len(each)


def slow_boundary(student: Tensor, teacher: Tensor) -> Tensor:
    total = torch.zeros((), dtype=torch.float64)
    for q_K, p_K in rows_of(student, teacher):
        if q_K.argmax() == p_K.argmax():
            total = total - sum(p * (torch.log(p) - torch.log(q)) for q, p in zip(q_K, p_K, strict=True))
    return total / len(student)


def slow_competition(student: Tensor, teacher: Tensor) -> Tensor:
    total = torch.zeros((), dtype=torch.float64)
    for q_K, p_K in rows_of(student, teacher):
        for q, p in zip(q_K, p_K, strict=True):
            middle = (p + q) / 2
            total = total + (p * torch.log(p / middle) + q * torch.log(q / middle)) / 2
    return 1 - total / len(student)


GAMES = {
    generator_losses.disagreement: slow_disagreement,
    generator_losses.divergence: slow_divergence,
    generator_losses.boundary: slow_boundary,
    generator_losses.competition: slow_competition,
}


@pytest.mark.parametrize("fast", GAMES, ids=lambda loss: loss.__name__)
def test_games_equal_their_formulas_for_both_networks(fast, logits):
    student = 0.7 * logits.detach()
    student[:2] = student[:2].flip(1)
    student.requires_grad_(True)
    agree = (student.argmax(1) == logits.argmax(1)).sum()
    assert 0 < agree < 6
    one, other = fast(student, logits), GAMES[fast](student, logits)
    torch.testing.assert_close(one, other)
    for mine, its in zip(*(torch.autograd.grad(loss, (student, logits)) for loss in (one, other)), strict=True):
        torch.testing.assert_close(mine, its)


@pytest.mark.parametrize(
    "fast",
    [generator_losses.divergence, generator_losses.boundary, generator_losses.competition],
    ids=lambda loss: loss.__name__,
)
def test_adversarial_losses_stay_finite_if_predictions_underflow(fast):
    student = torch.tensor([[0.0, 200.0, 0.0]], requires_grad=True)
    teacher = torch.tensor([[1.0, 400.0, -400.0]], requires_grad=True)
    value = fast(student, teacher)
    gradients = torch.autograd.grad(value, (student, teacher))
    assert value.isfinite()
    assert all(gradient.isfinite().all() for gradient in gradients)


def test_wanted_classes_replace_the_teachers_choice(logits):
    target = torch.tensor([0, 1, 2, 3, 0, 1])
    expected = (
        sum(-torch.log(torch.exp(row[k]) / torch.exp(row).sum()) for row, k in zip(logits, target, strict=True)) / 6
    )
    torch.testing.assert_close(generator_losses.one_hot(logits, target), expected)


def test_total_variation_is_the_norm_along_four_directions():
    image = torch.randn(2, 3, 4, 5, generator=torch.Generator().manual_seed(2), dtype=torch.float64).requires_grad_(
        True
    )
    total = torch.zeros((), dtype=torch.float64)
    for down, right in ((0, 1), (1, 0), (1, 1), (1, -1)):
        squares = torch.zeros((), dtype=torch.float64)
        for y in range(4 - down):
            for x in range(5):
                if 0 <= x + right < 5:
                    squares = squares + ((image[:, :, y + down, x + right] - image[:, :, y, x]) ** 2).sum()
        total = total + torch.sqrt(squares)
    torch.testing.assert_close(generator_losses.total_variation(image), total)
    (mine,), (its,) = (torch.autograd.grad(value, image) for value in (generator_losses.total_variation(image), total))
    torch.testing.assert_close(mine, its)
    flat = torch.ones(1, 1, 4, 4, requires_grad=True)
    assert generator_losses.total_variation(flat).item() == 0
    assert torch.autograd.grad(generator_losses.total_variation(flat), flat)[0].abs().max() == 0


def test_energy_is_the_norm_of_the_batch():
    assert generator_losses.energy(torch.full((2, 1, 2, 2), 3.0)).item() == pytest.approx(math.sqrt(8 * 9))
