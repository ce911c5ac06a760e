"""The loss of generalised distillation against the formula written slowly."""

import pytest
import torch

from tests.worker.distillation.trial import objective_of
from worker.distillation.step import Batch, Outputs, Step

LABEL = torch.tensor([2, 0, 1])


def step(student, teacher):
    return Step(Batch(torch.zeros(3, 1, 8, 8), {"label": LABEL}), Outputs(student), Outputs(teacher))


def logits():
    draw = torch.Generator().manual_seed(3)
    return (torch.randn(3, 4, generator=draw, dtype=torch.float64) * 2 for _ in range(2))


@pytest.mark.parametrize(("imitation", "temperature"), [(0.0, 5.0), (0.3, 2.0), (1.0, 1.0), (1.0, 20.0)])
def test_is_the_papers_sum_of_two_cross_entropies(imitation, temperature):
    student, teacher = logits()
    hard = soft = 0.0
    for sample in range(3):
        weights = (student[sample]).exp()
        hard -= float((weights[LABEL[sample]] / weights.sum()).log()) / 3
        mine, theirs = (student[sample] / temperature).exp(), (teacher[sample] / temperature).exp()
        for name in range(4):
            soft -= float(theirs[name] / theirs.sum() * (mine[name] / mine.sum()).log()) / 3
    terms = objective_of("privileged", imitation=imitation, temperature=temperature)(step(student, teacher))
    assert float(terms["labels"]) == pytest.approx((1 - imitation) * hard)
    assert float(terms["teacher"]) == pytest.approx(imitation * temperature**2 * soft)


def test_softens_both_networks():
    """Dividing only the teacher's logits, as the authors' code does, leaves a gradient for equal logits."""
    _, teacher = logits()
    student = teacher.clone().requires_grad_()
    objective_of("privileged", temperature=4.0)(step(student, teacher))["teacher"].backward()
    torch.testing.assert_close(student.grad, torch.zeros_like(student), rtol=0, atol=1e-12)


def test_equals_kd_if_only_the_teacher_has_weight():
    student, teacher = logits()
    gradients = []
    for name in ("privileged", "kd"):
        x = student.clone().requires_grad_()
        sum(objective_of(name, temperature=3.0)(step(x, teacher)).values()).backward()
        gradients.append(x.grad)
    torch.testing.assert_close(*gradients)
