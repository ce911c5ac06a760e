"""BAKE: soft targets from the other images of the batch, without a teacher."""

from dataclasses import dataclass
from typing import Annotated

import torch
import torch.nn.functional as F
from torch import Tensor

from worker.distillation.introspection.tap_map import TapMap, Taps
from worker.distillation.losses.embeddings import embedding_of, embedding_tap
from worker.distillation.losses.logits import Standardise, standardise
from worker.distillation.objective import Objective, ObjectiveNeeds
from worker.distillation.parameters import Range
from worker.distillation.precision import fp32, single
from worker.distillation.step import Step


class Bake(Objective):
    """Divergence of the student's softened predictions from those of its whole batch, propagated among alike images.

    Ge et al., "Self-distillation with batch knowledge ensembling improves ImageNet classification", arXiv:2104.13298.
    The diagonal of the affinities is removed by subtracting 1e9, as in the authors' code (yxgeee/BAKE); with the 1e-9
    of a pseudo-code that is about, each image would be its own nearest neighbour. The authors run a weight of 1 beside
    cross-entropy, and a propagation of 0.9 on small sets of many classes. It needs batches that hold several images of
    a class: `mates` of the source.
    """

    paper = "arXiv:2104.13298"
    needs = ObjectiveNeeds(teacher=False, sampler="per_class", batch_global=True)
    when = {
        ("standardise", True): {
            "needs": ObjectiveNeeds(teacher=False, sampler="per_class", batch_global=True, minimum_classes=3)
        },
    }

    @dataclass(frozen=True)
    class Parameters:
        """How far predictions travel."""

        propagation: Annotated[
            float, Range(ge=0, lt=1), "Share of a target that comes from other images; 0 teaches nothing."
        ] = 0.5
        temperature: Annotated[float, Range(gt=0), "Divides the logits before their softmax."] = 4.0
        tap: Annotated[str | None, "The tap whose (pooled) features are alike; null for what the classifier reads."] = (
            None
        )
        standardise: Standardise = False

    def taps(self, student: TapMap, teacher: TapMap | None) -> Taps:
        self.tap = embedding_tap(self.settings.tap, student, "student", "/tap")
        return Taps(student=(self.tap,))

    def forward(self, step: Step) -> dict[str, Tensor]:
        p = self.settings
        with fp32(step.student.logits.device):
            logits = single(step.student.logits)
            logits = standardise(logits) if p.standardise else logits
            with torch.no_grad():
                own = F.softmax(logits / p.temperature, dim=1)
                target = propagate(affinity(embedding_of(step.student, self.tap)), own, p.propagation)
            divergence = F.kl_div(F.log_softmax(logits / p.temperature, dim=1), target, reduction="batchmean")
            return {"bake": divergence * p.temperature**2}


def affinity(features_BD: Tensor) -> Tensor:
    """Softmax over the other samples of the cosine with each (B, B): rows sum to 1, the diagonal is 0."""
    unit = F.normalize(features_BD, dim=1)
    itself = torch.eye(len(unit), dtype=unit.dtype, device=unit.device)
    return F.softmax(unit @ unit.mT - 1e9 * itself, dim=1)


def propagate(affinity_BB: Tensor, own_BK: Tensor, share: float) -> Tensor:
    """The limit (B, K) of `Q <- share A Q + (1 - share) P`, which is `(1 - share) (I - share A)^-1 P`.

    As the rows of A sum to 1 and share < 1, the matrix is diagonally dominant, hence not singular: that is not looked
    up, since a GPU would have to be waited for.
    """
    matrix = torch.eye(len(own_BK), dtype=own_BK.dtype, device=own_BK.device) - share * affinity_BB
    return torch.linalg.solve_ex(matrix, (1 - share) * own_BK).result
