"""Ground truth of embeddings: the triplet loss."""

from dataclasses import dataclass
from typing import Annotated

import torch
import torch.nn.functional as F
from torch import Tensor

from worker.distillation.losses.embeddings import check_batch, distances
from worker.distillation.objective import Objective, ObjectiveNeeds
from worker.distillation.parameters import Range
from worker.distillation.precision import fp32, single
from worker.distillation.step import Step


class Triplet(Objective):
    """Batch-hard triplet loss: an image's farthest image of the same identity must be nearer than its nearest of
    another.

    Hermans, Beyer, Leibe, "In defense of the triplet loss for person re-identification", arXiv:1703.07737, equation 5,
    with the soft margin of section 2 by default. As there, an image counts as one of its own identity, at a distance of
    0. Images for which the batch holds no other identity are left out of the means.
    """

    paper = "arXiv:1703.07737"
    needs = ObjectiveNeeds(
        fields=("label",), teacher=False, sampler="per_class", batch_global=True, tasks=("embedding",)
    )

    @dataclass(frozen=True)
    class Parameters:
        """The margin, and the normalisation."""

        margin: Annotated[
            float | None, Range(ge=0), "Margin between the two distances. If null: the soft margin, log(1 + exp(.))."
        ] = None
        normalise: Annotated[bool, "Normalise embeddings to length 1 first."] = False

    def forward(self, step: Step) -> dict[str, Tensor]:
        p = self.settings
        check_batch(len(step.label), 2)
        with fp32(step.student.logits.device):
            embedding = single(step.student.logits)
            embedding = F.normalize(embedding, dim=1) if p.normalise else embedding
            return {"triplet": batch_hard(embedding, step.label, p.margin)}


def batch_hard(embedding_BD: Tensor, label_B: Tensor, margin: float | None) -> Tensor:
    """`[margin + max_positive d - min_negative d]+`, or its softplus without a margin, mean over the samples that
    have a negative."""
    apart, same = distances(embedding_BD), label_B[:, None] == label_B
    farthest = apart.masked_fill(~same, 0.0).amax(1)
    nearest = apart.masked_fill(same, torch.inf).amin(1)
    has_negative = ~same.all(1)
    difference = farthest - nearest  # no negative: minus infinity, so the loss is 0
    loss = F.softplus(difference) if margin is None else (difference + margin).clamp_min(0)
    return loss.sum() / has_negative.sum().clamp_min(1)
