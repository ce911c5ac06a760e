"""Cross-entropy with the labels."""

from dataclasses import dataclass
from typing import Annotated

import torch.nn.functional as F
from torch import Tensor

from worker.distillation.objective import Needs, Objective, single
from worker.distillation.parameters import Range
from worker.distillation.step import Step


class CrossEntropy(Objective):
    """Cross-entropy with the labels, as in training without a teacher.

    Label smoothing, off by default, is that of Szegedy et al., arXiv:1512.00567, section 7.
    """

    needs = Needs(fields=("label",), teacher=False)

    @dataclass(frozen=True)
    class Parameters:
        """How the labels are read."""

        label_smoothing: Annotated[
            float, Range(ge=0, lt=1), "Share of each target that is spread evenly over all classes."
        ] = 0.0

    def forward(self, step: Step) -> dict[str, Tensor]:
        logits = single(step.student.logits)
        return {"cross_entropy": F.cross_entropy(logits, step.label, label_smoothing=self.parameters_.label_smoothing)}
