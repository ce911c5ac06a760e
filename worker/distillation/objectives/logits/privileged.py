"""Generalised distillation: a teacher that has seen more of each sample than the student will."""

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

    Lopez-Paz, Bottou, Schölkopf, Vapnik, "Unifying distillation and privileged information", arXiv:1511.03643: the student
    minimises `(1 - imitation) H(label, s) + imitation T² H(softmax(t / T), softmax(s / T))` of its logits s, where the
    teacher's t are of the privileged image alone (`teacher_reads` of the source). The authors' code
    (lopezpaz/distillation_privileged_information) divides by T in the teacher alone; this does in both networks, as in
    arXiv:1503.02531. Imitation and temperature of 1 are those of their first experiments.
    """

    paper = "arXiv:1511.03643"
    needs = ObjectiveNeeds(fields=("label", "privileged"), logits=True)
    when = {
        ("standardise", True): {"needs": ObjectiveNeeds(fields=("label", "privileged"), logits=True, minimum_classes=3)}
    }

    @dataclass(frozen=True)
    class Parameters:
        """How much the teacher is believed, and how its predictions are softened."""

        imitation: Annotated[
            float, Range(ge=0, le=1), "Share of the teacher's predictions in the loss; the rest is the labels'."
        ] = 1.0
        temperature: Annotated[float, Range(gt=0), "Divides the logits of both networks before their softmax."] = 1.0
        standardise: Annotated[
            bool, "Shift and scale the rows that are softened to mean 0 and deviation 1 first (arXiv:2403.01427)."
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
