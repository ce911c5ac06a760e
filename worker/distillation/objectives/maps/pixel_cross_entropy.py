"""Cross-entropy of each pixel with the mask."""

from dataclasses import dataclass
from typing import Annotated

import torch
from torch import Tensor

from worker.distillation.errors import Problem, SpecError
from worker.distillation.losses.maps import pixel_cross_entropy
from worker.distillation.objective import BuildContext, Objective, ObjectiveNeeds
from worker.distillation.parameters import Items, Range
from worker.distillation.precision import fp32, single
from worker.distillation.step import Step


class PixelCrossEntropy(Objective):
    """Cross-entropy with the mask, as in training without a teacher: the mean over the pixels of the batch whose class is known.

    Pixels of 255 are ignored.
    """

    needs = ObjectiveNeeds(fields=("mask",), teacher=False, batch_global=True, tasks=("segmentation",))

    @dataclass(frozen=True)
    class Parameters:
        """The weights of the classes."""

        class_weights: Annotated[
            tuple[Annotated[float, Range(ge=0)], ...] | None,
            Items(least=2),
            "A weight for each class, in order. If null: all 1.",
        ] = None

    class_weight: Tensor | None

    def build(self, context: BuildContext) -> None:
        super().build(context)
        weights, classes = self.settings.class_weights, context.student.logits.shape[1]
        if weights is not None and len(weights) != classes:
            words = f"must have a number for each of {classes} classes, not {len(weights)}"
            raise SpecError([Problem("/class_weights", words)])
        held = None if weights is None else torch.tensor(weights, dtype=torch.float32)
        self.register_buffer("class_weight", held, persistent=False)

    def forward(self, step: Step) -> dict[str, Tensor]:
        logits = step.student.logits
        with fp32(logits.device):
            return {"pixel_cross_entropy": pixel_cross_entropy(single(logits), step.field("mask"), self.class_weight)}
