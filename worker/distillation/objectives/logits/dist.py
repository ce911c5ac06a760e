"""DIST: the student's predictions correlate with the teacher's, rather than equal them."""

from dataclasses import dataclass
from typing import Annotated

import torch.nn.functional as F
from torch import Tensor

from worker.distillation.losses.logits import Standardise, standardise
from worker.distillation.objective import Objective, ObjectiveNeeds
from worker.distillation.parameters import Range
from worker.distillation.precision import fp32, single
from worker.distillation.step import Step

EPSILON = 1e-8
"""Least norm of a centred row or column; that of the authors' code."""


class Dist(Objective):
    """One minus the correlation of the networks' predictions, over the classes of a sample and over the samples of a batch.

    Huang et al., "Knowledge distillation from a stronger teacher", arXiv:2205.10536. The authors' code
    (hunto/image_classification_sota) weighs it by 2 beside a cross-entropy of 1, with a temperature of 4 on CIFAR and of 1
    on ImageNet. Over two classes any two predictions correlate fully, one way or the other, which has no gradient: there
    only the samples of a batch are compared. A class (or a batch of one sample) that varies not at all has a distance of 1.
    """

    paper = "arXiv:2205.10536"
    needs = ObjectiveNeeds(logits=True, batch_global=True)
    when = {("standardise", True): {"needs": ObjectiveNeeds(logits=True, batch_global=True, minimum_classes=3)}}

    @dataclass(frozen=True)
    class Parameters:
        """How logits are softened, and what the two relations weigh."""

        temperature: Annotated[float, Range(gt=0), "Divides the logits of both networks before their softmax."] = 4.0
        beta: Annotated[float, Range(ge=0), "Weighs the relation between a sample's classes."] = 1.0
        gamma: Annotated[float, Range(ge=0), "Weighs the relation between a batch's samples within each class."] = 1.0
        standardise: Standardise = False

    def forward(self, step: Step) -> dict[str, Tensor]:
        p = self.settings
        with fp32(step.student.logits.device):
            student, teacher = single(step.student.logits), single(step.need_teacher().logits)
            if p.standardise:
                student, teacher = standardise(student), standardise(teacher)
            predictions = F.softmax(student / p.temperature, dim=1), F.softmax(teacher / p.temperature, dim=1)
            squared = p.temperature**2
            terms = {"intra": p.gamma * squared * correlation_distance(*predictions, dim=0)}
            if student.shape[1] > 2:
                terms["inter"] = p.beta * squared * correlation_distance(*predictions, dim=1)
            return terms


def correlation_distance(student_BK: Tensor, teacher_BK: Tensor, dim: int) -> Tensor:
    """One minus Pearson's correlation along `dim`, mean over the other dimension; from 0 (the same but for scale and shift) to 2."""
    student, teacher = (x - x.mean(dim, keepdim=True) for x in (student_BK, teacher_BK))
    return (1 - F.cosine_similarity(student, teacher, dim=dim, eps=EPSILON)).mean()
