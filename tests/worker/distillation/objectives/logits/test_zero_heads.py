"""Classifiers that begin at zero, as those of ViT: objectives that divide by the deviation of the logits stay bounded."""

import pytest
import torch
from torch import nn

from tests.worker.distillation.trial import objective_of
from worker.distillation.losses.logits import EPSILON, LEAST_DEVIATION, standardise
from worker.distillation.step import Batch, Outputs, Step

B, K, FEATURES = 32, 10, 64
OBJECTIVES = {
    "kd": {"standardise": True, "temperature": 2.0}, "dist": {"temperature": 1.0}, "dist at 4": {"temperature": 4.0},
    "dkd": {"standardise": True}, "logit_distance": {"standardise": True, "norm": "l2"},
}  # fmt: skip
MOST = 1e4
"""Largest norm of a gradient with respect to the classifier; it was 1e7 to 1e8."""


def step_of(student, teacher):
    return Step(Batch(torch.zeros(B, 1, 1, 1), {"label": torch.arange(B) % K}), Outputs(student), Outputs(teacher))


@pytest.fixture
def features():
    torch.manual_seed(0)
    return torch.randn(B, FEATURES)


def head_at_zero():
    head = nn.Linear(FEATURES, K)
    for parameter in head.parameters():
        nn.init.zeros_(parameter)
    return head


@pytest.mark.parametrize("name", OBJECTIVES)
def test_the_first_gradient_is_bounded_and_leads_to_the_teacher(features, name):
    head, objective = head_at_zero(), objective_of(name.split()[0], **OBJECTIVES[name])
    teacher = 2 * features @ torch.randn(FEATURES, K) / FEATURES**0.5
    optimizer = torch.optim.SGD(head.parameters(), 0.01)
    losses = []
    for number in range(100):
        loss = sum(objective(step_of(head(features), teacher)).values())
        optimizer.zero_grad()
        loss.backward()
        if number == 0:
            assert 0 < head.weight.grad.norm() < MOST
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < 0.7 * losses[0]


def test_logits_above_the_least_deviation_are_standardised_as_published():
    torch.manual_seed(0)
    logits = 1.5 * LEAST_DEVIATION * standardise(torch.randn(B, K))
    published = (logits - logits.mean(1, keepdim=True)) / (logits.std(1, keepdim=True) + EPSILON)
    assert torch.equal(standardise(logits), published)
