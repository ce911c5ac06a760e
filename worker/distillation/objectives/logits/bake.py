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
    """Divergence of the student's softened predictions from soft targets, which are its predictions for the whole
    batch, propagated among similar images.

    Ge et al., "Self-distillation with batch knowledge ensembling improves ImageNet classification", arXiv:2104.13298.
    The diagonal of the affinities is removed by subtracting 1e9, as in the authors' code (yxgeee/BAKE). With 1e-9, as
    in a published pseudo-code, each image would be its own nearest neighbour. The authors use a weight of 1 beside
    cross-entropy, and a propagation of 0.9 on small datasets of many classes. Batches must hold several images of a
    class: set `same_class_images` of the source.
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
        """The propagation, the temperature and the tap."""

        propagation: Annotated[
            float,
            Range(ge=0, lt=1),
            "Share of a soft target that comes from other images. With 0 the target is the image's own "
            "prediction, and nothing is learnt.",
        ] = 0.5
        temperature: Annotated[float, Range(gt=0), "Temperature: divides the logits before the softmax."] = 4.0
        tap: Annotated[
            str | None,
            "Tap whose (pooled) features measure the similarity of images. If null: the input of the classifier.",
        ] = None
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

    The rows of A sum to 1 and share < 1, so the matrix is diagonally dominant and hence not singular. The solver does
    not check this, since the check would synchronise with the GPU.
    """
    matrix = torch.eye(len(own_BK), dtype=own_BK.dtype, device=own_BK.device) - share * affinity_BB
    return torch.linalg.solve_ex(matrix, (1 - share) * own_BK).result
