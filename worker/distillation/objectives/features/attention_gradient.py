"""Attention transfer by gradients: to which pixels the loss is sensitive."""

from dataclasses import dataclass
from typing import Annotated, Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from worker.distillation.objective import Objective, ObjectiveNeeds
from worker.distillation.precision import fp32, single
from worker.distillation.step import Outputs, Step


class AttentionGradient(Objective):
    """Distance of the gradients of the cross-entropy with respect to the image, of student and teacher.

    Zagoruyko, Komodakis, "Paying more attention to attention", arXiv:1612.03928, section 3.2: the Euclidean norm of the
    difference, which the paper multiplies by beta / 2; the mean over samples is ours. `symmetry` has no teacher: it asks of
    the student that the gradients for an image and for its mirror image be mirror images. It differentiates twice, in
    single precision, and costs about three times a step.
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
            Literal["teacher", "symmetry"], "The teacher's gradient, or the student's own for mirrored images."
        ] = "teacher"

    def forward(self, step: Step) -> dict[str, Tensor]:
        with fp32(step.batch.image.device):
            mine = input_gradient(step.student, step, create_graph=True)
            if self.settings.against == "symmetry":
                if step.mirrored is None:
                    raise RuntimeError("an objective that needs mirrored images was given none")
                theirs = input_gradient(step.mirrored, step, create_graph=True)
            else:
                theirs = input_gradient(step.need_teacher(), step, create_graph=False).detach()
            return {self.settings.against: (mine - theirs).flatten(1).norm(dim=1).mean()}


def input_gradient(outputs: Outputs, step: Step, create_graph: bool) -> Tensor:
    """The gradient (B, C, H, W) of each sample's cross-entropy with respect to its image.

    Outputs for mirrored images give it mirrored back, since those were made of the image itself.
    """
    loss = F.cross_entropy(single(outputs.logits), step.label, reduction="sum")
    return torch.autograd.grad(loss, step.batch.image, create_graph=create_graph, retain_graph=True)[0]
