"""Pixel-wise distillation: the teacher's class probabilities at each pixel."""

from dataclasses import dataclass
from typing import Annotated

from torch import Tensor

from worker.distillation.losses.maps import pixel_kl
from worker.distillation.objective import Objective, ObjectiveNeeds
from worker.distillation.parameters import Range
from worker.distillation.precision import fp32, single
from worker.distillation.step import Step


class PixelWise(Objective):
    """Kullback-Leibler divergence of the student's class probabilities from the teacher's at each pixel.

    Liu et al., "Structured knowledge distillation for dense prediction", arXiv:1903.04197, equation 1. It is a mean over pixels
    and samples, where the authors' code (irfanICMLL/structure_knowledge_distillation) divides by the pixels alone: their weight of
    10 is 10 times the batch size here. All pixels count, also those that the mask ignores. The temperature is ours; the paper's is 1.
    """

    paper = "arXiv:1903.04197"
    needs = ObjectiveNeeds(logits=True, tasks=("segmentation",))

    @dataclass(frozen=True)
    class Parameters:
        """The temperature."""

        temperature: Annotated[float, Range(gt=0), "Divides the logits of both networks before the softmax."] = 1.0

    def forward(self, step: Step) -> dict[str, Tensor]:
        with fp32(step.student.logits.device):
            student, teacher = single(step.student.logits), single(step.need_teacher().logits)
            return {"pixel_wise": pixel_kl(student, teacher, self.settings.temperature)}
