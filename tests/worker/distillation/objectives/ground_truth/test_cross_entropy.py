"""Cross-entropy against the formula written slowly."""

import pytest
import torch

from tests.worker.distillation.trial import objective_of
from worker.distillation.step import Batch, Outputs, Step


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_is_the_slow_formula(smoothing):
    torch.manual_seed(0)
    logits, label = torch.randn(5, 4, dtype=torch.float64), torch.tensor([0, 3, 1, 1, 2])
    total = 0.0
    for row, right in zip(logits, label, strict=True):
        normaliser = torch.log(sum(torch.exp(value) for value in row))
        target = [smoothing / 4 + (1 - smoothing) * (number == right) for number in range(4)]
        total -= sum(share * (value - normaliser) for share, value in zip(target, row, strict=True))
    step = Step(Batch(torch.zeros(5, 1, 1, 1), {"label": label}), Outputs(logits))
    value = objective_of("cross_entropy", label_smoothing=smoothing)(step)["cross_entropy"]
    torch.testing.assert_close(value, total / 5)
