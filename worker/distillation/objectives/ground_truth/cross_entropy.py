"""Cross-entropy with the labels."""

from dataclasses import dataclass
from typing import Annotated

import torch.nn.functional as F
from torch import Tensor

from worker.distillation.objective import Objective, ObjectiveNeeds
from worker.distillation.parameters import Range
from worker.distillation.precision import single
from worker.distillation.step import Outputs, Step


class CrossEntropy(Objective):
    """Cross-entropy with the labels, as in training without a teacher.

    Label smoothing, off by default, is that of Szegedy et al., arXiv:1512.00567, section 7.
    """

    needs = ObjectiveNeeds(fields=("label",), teacher=False)
    when = {("second_view", True): {"needs": ObjectiveNeeds(fields=("label", "second_view"), teacher=False)}}

    @dataclass(frozen=True)
    class Parameters:
        """How the labels are used."""

        label_smoothing: Annotated[
            float, Range(ge=0, lt=1), "Label smoothing: share of each target that is spread evenly over all classes."
        ] = 0.0
        second_view: Annotated[bool, "Add the cross-entropy of a second view of each image."] = False

    def forward(self, step: Step) -> dict[str, Tensor]:
        terms = {"cross_entropy": self._of(step.student, step)}
        if self.settings.second_view:
            terms["second_view"] = self._of(step.need_second(), step)
        return terms

    def _of(self, outputs: Outputs, step: Step) -> Tensor:
        return F.cross_entropy(single(outputs.logits), step.label, label_smoothing=self.settings.label_smoothing)
