"""Logit distance against its formula, written slowly."""

import pytest
import torch

from tests.worker.distillation.trial import objective_of
from worker.distillation.step import Batch, Outputs, Step

KNEE = 0.7


def slow(norm: str, away: float) -> float:
    if norm == "l1":
        return abs(away)
    if norm == "l2":
        return away * away
    return abs(away) - KNEE / 2 if abs(away) > KNEE else away * away / (2 * KNEE)


@pytest.mark.parametrize("norm", ["l1", "l2", "smooth_l1"])
def test_is_the_mean_over_all_logits(norm):
    draw = torch.Generator().manual_seed(1)
    student, teacher = (torch.randn(5, 4, generator=draw) for _ in range(2))
    step = Step(Batch(torch.zeros(5, 1, 2, 2)), Outputs(student), Outputs(teacher))
    (value,) = objective_of("logit_distance", norm=norm, knee=KNEE)(step).values()
    expected = sum(slow(norm, away) for away in (student - teacher).flatten().tolist()) / 20
    assert value.item() == pytest.approx(expected, rel=1e-5)


def test_pull_of_the_absolute_distance_does_not_fade():
    teacher = torch.zeros(2, 3)
    for away in (1.0, 1e-3):
        student = torch.full((2, 3), away, requires_grad=True)
        step = Step(Batch(torch.zeros(2, 1, 2, 2)), Outputs(student), Outputs(teacher))
        sum(objective_of("logit_distance")(step).values()).backward()
        torch.testing.assert_close(student.grad, torch.full((2, 3), 1 / 6))


@pytest.mark.parametrize("norm", ["l1", "l2", "smooth_l1"])
def test_is_finite_at_absurd_logits(norm):
    student = torch.full((64, 1000), 3e38, requires_grad=True)
    step = Step(Batch(torch.zeros(64, 1, 2, 2)), Outputs(student), Outputs(torch.full((64, 1000), -3e38)))
    value = sum(objective_of("logit_distance", norm=norm)(step).values())
    value.backward()
    assert value.isfinite()
    assert student.grad.isfinite().all()
