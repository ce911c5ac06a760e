"""Generalised distillation: the teacher reads images that the student does not see."""

from dataclasses import dataclass
from typing import Annotated

import torch.nn.functional as F
from torch import Tensor

from worker.distillation.losses.logits import standardise
from worker.distillation.objective import Objective, ObjectiveNeeds
from worker.distillation.parameters import Range
from worker.distillation.precision import fp32, single
from worker.distillation.step import Step


class Privileged(Objective):
    """Cross-entropy with the labels and with the softened predictions of a teacher that reads privileged images.

    Lopez-Paz, Bottou, Schölkopf, Vapnik, "Unifying distillation and privileged information", arXiv:1511.03643: the
    student minimises `(1 - imitation) H(label, s) + imitation T² H(softmax(t / T), softmax(s / T))`, where s are its
    logits and t the teacher's logits for the privileged image alone (`teacher_reads` of the source). The authors' code
    (lopezpaz/distillation_privileged_information) divides only the teacher's logits by T. This objective divides both
    networks' logits, as in arXiv:1503.02531. The defaults of 1 for imitation and temperature are those of the authors'
    first experiments.
    """

    paper = "arXiv:1511.03643"
    needs = ObjectiveNeeds(fields=("label", "privileged"), logits=True)
    when = {
        ("standardise", True): {"needs": ObjectiveNeeds(fields=("label", "privileged"), logits=True, minimum_classes=3)}
    }

    @dataclass(frozen=True)
    class Parameters:
        """The weight of the teacher, and the temperature."""

        imitation: Annotated[
            float,
            Range(ge=0, le=1),
            "Weight of the teacher's predictions in the loss, from 0 to 1; the labels have the rest.",
        ] = 1.0
        temperature: Annotated[
            float, Range(gt=0), "Temperature: divides the logits of both networks before the softmax."
        ] = 1.0
        standardise: Annotated[
            bool, "Standardise the rows that are softened to mean 0 and deviation 1 first (arXiv:2403.01427)."
        ] = False

    def forward(self, step: Step) -> dict[str, Tensor]:
        p = self.settings
        with fp32(step.student.logits.device):
            student, teacher = single(step.student.logits), single(step.need_teacher().logits)
            labels = F.cross_entropy(student, step.label)
            if p.standardise:
                student, teacher = standardise(student), standardise(teacher)
            return {
                "labels": (1 - p.imitation) * labels,
                "teacher": p.imitation * p.temperature**2 * _soft(student / p.temperature, teacher / p.temperature),
            }


def _soft(student_BK: Tensor, teacher_BK: Tensor) -> Tensor:
    """Cross-entropy with the teacher's probabilities, mean over the batch."""
    return F.cross_entropy(student_BK, teacher_BK.softmax(1))
