"""Attention to a teacher by its own error, shared by attentive imitation and attentive hints.

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
    """Parameters of both."""

    form: Annotated[Form, "How a teacher's error becomes attention."] = "scaled"
    rotations: Annotated[int, Range(ge=0), "How many of the last outputs are a pose's rotation."] = 0
    rotation_weight: Annotated[float, Range(ge=0), "What squares of the rotation are multiplied by."] = 1.0


class TeacherErrors(nn.Module):
    """The least and the largest error of a teacher over the training set, and what a sample's error is worth."""

    low: Tensor
    high: Tensor

    def __init__(self, parameters: AttentionParameters):
        super().__init__()
        self.form = parameters.form
        self.rotations, self.rotation_weight = parameters.rotations, parameters.rotation_weight
        self.register_buffer("low", torch.tensor(torch.inf))
        self.register_buffer("high", torch.tensor(-torch.inf))

    def check(self, context: BuildContext) -> None:
        """See that there are as many outputs as are a rotation.

        Raises:
            SpecError: there are fewer.
        """
        outputs = context.student.logits.shape[1]
        if self.rotations > outputs:
            raise SpecError([Problem("/rotations", f"must be at most {outputs}, the number of the student's outputs")])

    def squared(self, given_BD: Tensor, wanted_BD: Tensor) -> Tensor:
        """Squared distances (B,), a rotation's outputs with their weight."""
        weights = pose_weights(given_BD.shape[1], self.rotations, self.rotation_weight, given_BD.device)
        return ((given_BD - wanted_BD.to(given_BD.dtype)).square() * weights).sum(1)

    def observe(self, step: Step) -> None:
        """See the teacher's errors on one batch of the training set."""
        error = self._of(step)
        self.low = torch.minimum(self.low, error.min())
        self.high = torch.maximum(self.high, error.max())

    def attention(self, step: Step) -> Tensor:
        """What the teacher's answers to a batch are worth (B,)."""
        return attention(self._of(step), self.low, self.high, self.form)

    def _of(self, step: Step) -> Tensor:
        return self.squared(single(step.need_teacher().logits), step.batch.fields["target"])


def attention(error: Tensor, low: Tensor, high: Tensor, form: Form = "scaled") -> Tensor:
    """`1 - error / (high - low)` as it is printed in the paper, or `scaled`: with `error - low`, kept within 0 and 1.

    As printed, the best answer is worth less than 1 and the worst less than 0, unless the least error is 0. Where all errors are
    one, each is worth 1.
    """
    span = high - low
    flat = span <= 0
    worth = 1 - (error if form == "literal" else error - low) / torch.where(flat, 1.0, span)
    return torch.where(flat, 1.0, worth if form == "literal" else worth.clamp(0, 1))
