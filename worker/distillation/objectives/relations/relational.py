"""Relational knowledge distillation: match the distances and angles between samples."""

from dataclasses import dataclass
from typing import Annotated

import torch
import torch.nn.functional as F
from torch import Tensor

from worker.distillation.errors import Problem, SpecError
from worker.distillation.introspection.tap_map import TapMap, Taps
from worker.distillation.losses.embeddings import EmbeddingObjective, distances
from worker.distillation.objective import ObjectiveNeeds
from worker.distillation.parameters import Range, TapPair
from worker.distillation.precision import fp32
from worker.distillation.step import Step
from worker.distillation.task import EVERY_TASK

EPSILON = 1e-12
"""Minimum mean distance, and minimum squared distance of a pair that has a direction."""


class Relational(EmbeddingObjective):
    """Huber losses between student and teacher of pairwise distances, in units of their mean, and of the angles of all
    triples.

    Park et al., "Relational knowledge distillation", arXiv:1904.05068, sections 3.2.1 and 3.2.2. The factors 25 and 50
    are those of HobbitLong/RepDistiller. Losses are means over all B^2 pairs and B^3 triples, including those of a
    sample with itself, as in the authors' code (lenscloth/RKD). Memory grows with B^3, and with B^2 times the
    embedding's dimension. By default the input of each network's classifier is compared.
    """

    paper = "arXiv:1904.05068"
    needs = ObjectiveNeeds(batch_global=True, tasks=EVERY_TASK)
    least_samples = 3

    @dataclass(frozen=True)
    class Parameters:
        """The factors, and the taps to compare."""

        distance: Annotated[float, Range(ge=0), "Weight of the loss of the distances. 0 turns it off."] = 25.0
        angle: Annotated[float, Range(ge=0), "Weight of the loss of the angles. 0 turns it off."] = 50.0
        tap: Annotated[
            TapPair | None, "The student's and the teacher's tap. If null: the inputs of the classifiers."
        ] = None

    def taps(self, student: TapMap, teacher: TapMap | None) -> Taps:
        if not (self.settings.distance or self.settings.angle):
            raise SpecError([Problem("/distance", "must be greater than 0 if the angle's factor is 0")])
        return super().taps(student, teacher)

    def forward(self, step: Step) -> dict[str, Tensor]:
        with fp32(step.student.logits.device):
            student, teacher = self.embeddings(step)
            factors = {"distance": self.settings.distance, "angle": self.settings.angle}
            losses = {"distance": distance_loss, "angle": angle_loss}
            return {
                name: factor * losses[name](student, teacher.detach()) for name, factor in factors.items() if factor
            }


def distance_loss(student_BD: Tensor, teacher_BE: Tensor) -> Tensor:
    """Mean over all pairs of the Huber loss (threshold 1) between distances in units of their mean."""
    return F.smooth_l1_loss(relative_distances(student_BD), relative_distances(teacher_BE))


def angle_loss(student_BD: Tensor, teacher_BE: Tensor) -> Tensor:
    """Mean over all triples of the Huber loss (threshold 1) between cosines."""
    return F.smooth_l1_loss(angles(student_BD), angles(teacher_BE))


def relative_distances(x_BD: Tensor) -> Tensor:
    """Distances (B, B) divided by their mean over pairs of different samples."""
    distances_BB = distances(x_BD)
    mean = distances_BB.sum() / (len(x_BD) * (len(x_BD) - 1))
    return distances_BB / mean.clamp_min(EPSILON)


def angles(x_BD: Tensor) -> Tensor:
    """Cosines (B, B, B) of the angle at the first sample between the other two; 0 if one of them coincides with the
    first."""
    difference_BBD = x_BD[None] - x_BD[:, None]
    squares_BB1 = difference_BBD.square().sum(2, keepdim=True)
    inverse_BB1 = squares_BB1.clamp_min(EPSILON).rsqrt()
    direction_BBD = difference_BBD * torch.where(squares_BB1 > EPSILON, inverse_BB1, 0.0)
    return direction_BBD @ direction_BBD.mT
