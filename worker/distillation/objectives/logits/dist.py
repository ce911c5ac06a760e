"""DIST: the student's predictions must correlate with the teacher's, not equal them."""

from dataclasses import dataclass
from typing import Annotated

import torch.nn.functional as F
from torch import Tensor

from worker.distillation.losses.logits import LEAST_DEVIATION, Standardise, standardise
from worker.distillation.objective import Objective, ObjectiveNeeds
from worker.distillation.parameters import Range
from worker.distillation.precision import fp32, single
from worker.distillation.step import Step

EPSILON = 1e-8
"""Added to the product of the norms, as in the authors' code."""


class Dist(Objective):
    """One minus the correlation of student's and teacher's predictions, over the classes of a sample and over the
    samples of a batch.

    Huang et al., "Knowledge distillation from a stronger teacher", arXiv:2205.10536. The authors' code
    (hunto/image_classification_sota) uses a weight of 2 beside a cross-entropy of 1, with a temperature of 4 on CIFAR
    and of 1 on ImageNet. Over two classes, any two predictions have a correlation of 1 or -1, which has no gradient:
    then only the samples of a batch are compared. A class without variation, or a batch of one sample, has a distance
    of 1. Unlike in the authors' code, logits of a standard deviation below 0.01 count as if it were that, so that a
    classifier that begins at zero does not get gradients of 10^8.
    """

    paper = "arXiv:2205.10536"
    needs = ObjectiveNeeds(logits=True, batch_global=True)
    when = {("standardise", True): {"needs": ObjectiveNeeds(logits=True, batch_global=True, minimum_classes=3)}}

    @dataclass(frozen=True)
    class Parameters:
        """The temperature, and the weights of the two relations."""

        temperature: Annotated[
            float, Range(gt=0), "Temperature: divides the logits of both networks before the softmax."
        ] = 4.0
        beta: Annotated[float, Range(ge=0), "Weight of the relation between a sample's classes."] = 1.0
        gamma: Annotated[float, Range(ge=0), "Weight of the relation between a batch's samples within each class."] = (
            1.0
        )
        standardise: Standardise = False

    def forward(self, step: Step) -> dict[str, Tensor]:
        p = self.settings
        with fp32(step.student.logits.device):
            student, teacher = single(step.student.logits), single(step.need_teacher().logits)
            if p.standardise:
                student, teacher = standardise(student), standardise(teacher)
            predictions = F.softmax(student / p.temperature, dim=1), F.softmax(teacher / p.temperature, dim=1)
            squared, least = p.temperature**2, LEAST_DEVIATION / p.temperature
            terms = {"intra": p.gamma * squared * correlation_distance(*predictions, dim=0, least=least)}
            if student.shape[1] > 2:
                terms["inter"] = p.beta * squared * correlation_distance(*predictions, dim=1, least=least)
            return terms


def correlation_distance(student_BK: Tensor, teacher_BK: Tensor, dim: int, least: float = 0.0) -> Tensor:
    """One minus Pearson's correlation along `dim`, mean over the other dimension; from 0 (equal up to scale and
    shift) to 2.

    A student's deviation counts as at least `least` times its mean, so that predictions without variation get a bounded
    gradient.
    """
    mean = student_BK.mean(dim, keepdim=True)
    student, teacher = student_BK - mean, teacher_BK - teacher_BK.mean(dim, keepdim=True)
    smallest = least * mean.detach().abs().squeeze(dim) * student_BK.shape[dim] ** 0.5
    norms = student.norm(dim=dim).clamp_min(smallest) * teacher.norm(dim=dim)
    return (1 - (student * teacher).sum(dim) / (norms + EPSILON)).mean()
