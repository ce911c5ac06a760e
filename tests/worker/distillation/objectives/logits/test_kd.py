"""KD against its closed forms; mistakes of public code must fail them."""

import pytest
import torch
import torch.nn.functional as F

from tests.worker.distillation.trial import objective_of
from worker.distillation.errors import SpecError
from worker.distillation.losses.logits import softened_kl, standardise
from worker.distillation.objective import BuildContext
from worker.distillation.step import Batch, Outputs, Step

B, K = 6, 11


def wrong_mean(student, teacher, t):
    value = F.kl_div(F.log_softmax(student / t, 1), F.softmax(teacher / t, 1), reduction="none")
    return value.mean() * t**2


def wrong_scale(student, teacher, t):
    return F.kl_div(F.log_softmax(student / t, 1), F.softmax(teacher / t, 1), reduction="batchmean")


def wrong_direction(student, teacher, t):
    return F.kl_div(F.log_softmax(teacher / t, 1), F.softmax(student / t, 1), reduction="batchmean") * t**2


WRONG = (wrong_mean, wrong_scale, wrong_direction)


def ours(student, teacher, temperature):
    step = Step(Batch(torch.zeros(B, 1, 1, 1)), Outputs(student), Outputs(teacher))
    return objective_of("kd", temperature=float(temperature))(step)["kd"]


@pytest.fixture
def logits():
    torch.manual_seed(1)
    student, teacher = torch.randn(2, B, K, dtype=torch.float64).mul(3).unbind()
    return student.requires_grad_(True), teacher


def gradient(divergence, student, teacher, temperature):
    return torch.autograd.grad(divergence(student, teacher, temperature), student)[0]


def has_the_closed_gradient(divergence, student, teacher, t):
    """`T (p_student - p_teacher) / B`."""
    closed = t * (F.softmax(student / t, 1) - F.softmax(teacher / t, 1)) / B
    return torch.allclose(gradient(divergence, student, teacher, t), closed, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("temperature", [1.0, 4.0, 20.0])
def test_gradient_is_the_closed_one(logits, temperature):
    assert has_the_closed_gradient(ours, *logits, temperature)


@pytest.mark.parametrize("wrong", WRONG)
def test_wrong_variants_have_another_gradient(logits, wrong):
    assert not has_the_closed_gradient(wrong, *logits, 4.0)


def centred(logits):
    return logits - logits.mean(1, keepdim=True)


def is_matching_of_logits_when_hot(divergence, student, teacher):
    """In the limit of high temperature: half the mean square of the centred logits' distance, and its gradient."""
    difference = centred(student) - centred(teacher)
    value = divergence(student, teacher, 1e5)
    slope = torch.autograd.grad(value, student)[0]
    return torch.allclose(value, 0.5 * difference.square().mean(), rtol=1e-3) and torch.allclose(
        slope, difference / (K * B), atol=1e-5
    )


def test_is_matching_of_logits_when_hot(logits):
    assert is_matching_of_logits_when_hot(ours, *logits)


@pytest.mark.parametrize("wrong", [wrong_mean, wrong_scale])
def test_wrong_variants_are_not(logits, wrong):
    assert not is_matching_of_logits_when_hot(wrong, *logits)


def test_zero_for_logits_equal_up_to_a_constant_of_the_row(logits):
    _, teacher = logits
    shifted = teacher + torch.arange(B, dtype=torch.float64)[:, None]
    assert ours(shifted, teacher, 4.0).abs() < 1e-12


def test_cross_entropy_for_a_certain_teacher():
    torch.manual_seed(2)
    student, label = torch.randn(B, K, dtype=torch.float64), torch.arange(B)
    certain = 1000.0 * F.one_hot(label, K).double()
    torch.testing.assert_close(ours(student, certain, 1.0), F.cross_entropy(student, label))


def test_standardised_rows_are_those_of_the_slow_formula(logits):
    _, teacher = logits
    for row, given in zip(standardise(teacher), teacher, strict=True):
        mean = sum(given) / K
        deviation = (sum((value - mean) ** 2 for value in given) / (K - 1)) ** 0.5
        torch.testing.assert_close(row, (given - mean) / (1e-7 + deviation))


def test_standardised_kd_ignores_scale_and_shift_of_each_row():
    torch.manual_seed(3)
    student, teacher = torch.randn(2, B, K, dtype=torch.float64).unbind()
    scale, shift = torch.rand(B, 1, dtype=torch.float64) + 0.5, torch.randn(B, 1, dtype=torch.float64)
    objective = objective_of("kd", standardise=True, temperature=2.0)
    values = [
        objective(Step(Batch(torch.zeros(B, 1, 1, 1)), Outputs(logits), Outputs(teacher)))["kd"]
        for logits in (student, scale * student + shift)
    ]
    torch.testing.assert_close(values[0], values[1], rtol=1e-5, atol=1e-8)
    plain = softened_kl(standardise(student), standardise(teacher), 2.0)
    torch.testing.assert_close(values[0], plain)


def test_standardised_kd_refuses_two_classes():
    outputs = Outputs(torch.zeros(2, 2))
    context = BuildContext(outputs, outputs, torch.nn.Identity(), torch.nn.Identity(), classes=2)
    objective_of("kd").build(context)
    with pytest.raises(SpecError, match="at least 3 classes"):
        objective_of("kd", standardise=True).build(context)


@pytest.mark.parametrize("temperature", [0.0, -1.0, float("nan"), float("inf"), "4", True])
def test_refuses_temperatures_that_are_none(temperature):
    with pytest.raises(SpecError) as caught:
        objective_of("kd", temperature=temperature)
    assert [problem.pointer for problem in caught.value.problems] == ["/temperature"]
