"""Logit distance: regression of the student's logits on the teacher's."""

from dataclasses import dataclass
from typing import Annotated, Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from worker.distillation.losses.logits import Standardise, standardise
from worker.distillation.objective import Objective, ObjectiveNeeds
from worker.distillation.parameters import Range
from worker.distillation.precision import fp32, single
from worker.distillation.step import Step
from worker.distillation.task import EVERY_TASK

LARGEST = 1e16
"""Larger differences count as this one, so that the loss is finite."""


class LogitDistance(Objective):
    """Mean absolute, smooth absolute or squared difference of the networks' logits.

    Squared: Ba, Caruana, "Do deep nets really need to be deep?", arXiv:1312.6184, section 2.2. Absolute: Fang et al.,
    "Data-free adversarial distillation", arXiv:1912.11006, section 3.2, where students use it because its gradient does
    not vanish as the networks come to agree.
    """

    paper = "arXiv:1312.6184"
    needs = ObjectiveNeeds(logits=True, tasks=EVERY_TASK)
    when = {("standardise", True): {"needs": ObjectiveNeeds(logits=True, minimum_classes=3)}}

    @dataclass(frozen=True)
    class Parameters:
        """The form of the distance."""

        norm: Annotated[Literal["l1", "smooth_l1", "l2"], "Form of the distance: absolute, squared below `knee` and absolute above it, or squared."] = "l1"  # fmt: skip
        knee: Annotated[float, Range(gt=0), "Difference at which `smooth_l1` changes from squared to absolute."] = 1.0
        standardise: Standardise = False

    def forward(self, step: Step) -> dict[str, Tensor]:
        with fp32(step.student.logits.device):
            student, teacher = single(step.student.logits), single(step.need_teacher().logits)
            if self.settings.standardise:
                student, teacher = standardise(student), standardise(teacher)
            return {"distance": self._measure((student - teacher).clamp(-LARGEST, LARGEST))}

    def _measure(self, difference: Tensor) -> Tensor:
        if self.settings.norm == "l1":
            return difference.abs().mean()
        if self.settings.norm == "l2":
            return difference.square().mean()
        return F.smooth_l1_loss(difference, torch.zeros_like(difference), beta=self.settings.knee)
