"""Weighting samples by the teacher's error on them, shared by attentive imitation and attentive hints.

Saputra et al., "Distilling knowledge from a deep pose regressor network", arXiv:1908.00858. Shapes: B batch, D outputs.
"""

from dataclasses import dataclass
from typing import Annotated, Literal

import torch
from torch import Tensor, nn

from worker.distillation.errors import Problem, SpecError
from worker.distillation.losses.regression import pose_weights
from worker.distillation.objective import BuildContext
from worker.distillation.parameters import Range
from worker.distillation.precision import single
from worker.distillation.step import Step

Form = Literal["scaled", "literal"]


@dataclass(frozen=True)
class AttentionParameters:
    """Parameters of both objectives."""

    form: Annotated[
        Form,
        "Attention from the teacher's error: `literal` is 1 - error / (max - min) as printed in the paper, `scaled` is"
        " 1 - (error - min) / (max - min), clamped to 0 and 1.",
    ] = "scaled"
    rotations: Annotated[int, Range(ge=0), "Number of outputs, at the end, that are the rotation of a pose."] = 0
    rotation_weight: Annotated[float, Range(ge=0), "Weight of the squared error of the rotation."] = 1.0


class TeacherErrors(nn.Module):
    """The smallest and largest error of a teacher over the training set, and the attention of each sample."""

    low: Tensor
    high: Tensor

    def __init__(self, parameters: AttentionParameters):
        super().__init__()
        self.form = parameters.form
        self.rotations = parameters.rotations
        self.rotation_weight = parameters.rotation_weight
        self.register_buffer("low", torch.tensor(torch.inf))
        self.register_buffer("high", torch.tensor(-torch.inf))

    def check(self, context: BuildContext) -> None:
        """Check that the student has at least as many outputs as `rotations`.

        Raises:
            SpecError: it has fewer.
        """
        outputs = context.student.logits.shape[1]
        if self.rotations > outputs:
            raise SpecError([Problem("/rotations", f"must be at most {outputs}, the student's number of outputs")])

    def squared(self, given_BD: Tensor, wanted_BD: Tensor) -> Tensor:
        """Squared distances (B,), with the weight of the rotation."""
        weights = pose_weights(given_BD.shape[1], self.rotations, self.rotation_weight, given_BD.device)
        return ((given_BD - wanted_BD.to(given_BD.dtype)).square() * weights).sum(1)

    def observe(self, step: Step) -> None:
        """Update smallest and largest error with one batch of the training set."""
        error = self._of(step)
        self.low = torch.minimum(self.low, error.min())
        self.high = torch.maximum(self.high, error.max())

    def attention(self, step: Step) -> Tensor:
        """The attention (B,) of the samples of a batch."""
        return attention(self._of(step), self.low, self.high, self.form)

    def _of(self, step: Step) -> Tensor:
        return self.squared(single(step.need_teacher().logits), step.batch.fields["target"])


def attention(error: Tensor, low: Tensor, high: Tensor, form: Form = "scaled") -> Tensor:
    """`literal`: `1 - error / (high - low)`, as printed in the paper. `scaled`: `1 - (error - low) / (high - low)`, clamped.

    As printed, the best attention is below 1 and the worst below 0, unless the smallest error is 0. If all errors are equal,
    attention is 1.
    """
    span = high - low
    flat = span <= 0
    weight = 1 - (error if form == "literal" else error - low) / torch.where(flat, 1.0, span)
    return torch.where(flat, 1.0, weight if form == "literal" else weight.clamp(0, 1))
