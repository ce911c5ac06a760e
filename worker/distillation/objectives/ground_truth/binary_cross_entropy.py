"""Ground truth of multi-label classification: binary cross-entropy with each label."""

from dataclasses import dataclass

import torch.nn.functional as F
from torch import Tensor

from worker.distillation.objective import Objective, ObjectiveNeeds
from worker.distillation.precision import single
from worker.distillation.step import Step


class BinaryCrossEntropy(Objective):
    """Binary cross-entropy of every label's sigmoid, mean over samples and labels, as in multi-label training
    without a teacher."""

    needs = ObjectiveNeeds(fields=("label",), teacher=False, tasks=("multi_label",))

    @dataclass(frozen=True)
    class Parameters:
        """No parameters."""

    def forward(self, step: Step) -> dict[str, Tensor]:
        logits = single(step.student.logits)
        return {"binary_cross_entropy": F.binary_cross_entropy_with_logits(logits, step.label.to(logits.dtype))}
