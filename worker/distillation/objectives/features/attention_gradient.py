"""Gradient-based attention transfer: match the gradients of the loss with respect to the image."""

from dataclasses import dataclass
from typing import Annotated, Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from worker.distillation.objective import Objective, ObjectiveNeeds
from worker.distillation.precision import fp32, single
from worker.distillation.step import Outputs, Step


class AttentionGradient(Objective):
    """Distance between the student's and the teacher's gradients of the cross-entropy with respect to the image.

    Zagoruyko, Komodakis, "Paying more attention to attention", arXiv:1612.03928, section 3.2: the Euclidean norm of the
    difference, which the paper multiplies by beta / 2. The mean over samples is ours. `symmetry` uses no teacher: the
    student's gradients for an image and for its mirror image must be mirror images of each other. The loss
    differentiates twice, in single precision, and costs about three times a step.
    """

    paper = "arXiv:1612.03928"
    needs = ObjectiveNeeds(fields=("label",), input_gradient=True)
    when = {
        ("against", "symmetry"): {
            "needs": ObjectiveNeeds(fields=("label",), teacher=False, input_gradient=True, mirrored=True)
        },
    }

    @dataclass(frozen=True)
    class Parameters:
        """What the student's gradient is compared with."""

        against: Annotated[
            Literal["teacher", "symmetry"],
            "Target of the student's gradient: the teacher's gradient, or the student's own gradient for mirrored"
            " images.",
        ] = "teacher"

    def forward(self, step: Step) -> dict[str, Tensor]:
        with fp32(step.batch.image.device):
            mine = input_gradient(step.student, step, create_graph=True)
            if self.settings.against == "symmetry":
                if step.mirrored is None:
                    raise RuntimeError("an objective that needs mirrored images received none")
                theirs = input_gradient(step.mirrored, step, create_graph=True)
            else:
                theirs = input_gradient(step.need_teacher(), step, create_graph=False).detach()
            return {self.settings.against: (mine - theirs).flatten(1).norm(dim=1).mean()}


def input_gradient(outputs: Outputs, step: Step, create_graph: bool) -> Tensor:
    """The gradient (B, C, H, W) of each sample's cross-entropy with respect to its image.

    Gradients of outputs for mirrored images come back mirrored, because the mirrored images were computed from the
    image itself.
    """
    loss = F.cross_entropy(single(outputs.logits), step.label, reduction="sum")
    return torch.autograd.grad(loss, step.batch.image, create_graph=create_graph, retain_graph=True)[0]
