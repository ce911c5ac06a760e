"""Conditional adversarial distillation: a discriminator separates the student's logits from the teacher's."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Annotated, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn.utils.parametrizations import spectral_norm

from worker.distillation.losses.logits import Standardise, standardise
from worker.distillation.objective import BuildContext, Objective, ObjectiveNeeds
from worker.distillation.parameters import Range
from worker.distillation.precision import fp32, single
from worker.distillation.step import Outputs, Step


class ConditionalAdversarial(Objective):
    """Distance between the logits, plus an adversarial loss: the student trains against a discriminator that separates
    its logits from the teacher's.

    Xu, Hsu, Huang, "Training shallow and thin networks for acceleration via knowledge distillation with conditional
    adversarial networks", arXiv:1709.00513. The discriminator is a residual perceptron that reads logits and outputs
    scores of the classes and, separately, of two origins. It learns both. The student is trained so that the
    discriminator assigns its logits to their label and to the teacher. `lsgan` uses one score of origin, 1 for the
    teacher's and 0 for the student's logits, and keeps the class scores (ours). All sizes, weights, spectral
    normalisation and the learning rate are ours.
    """

    paper = "arXiv:1709.00513"
    needs = ObjectiveNeeds(fields=("label",), logits=True)
    when = {("standardise", True): {"needs": ObjectiveNeeds(fields=("label",), logits=True, minimum_classes=3)}}

    @dataclass(frozen=True)
    class Parameters:
        """The weights of the parts, and the discriminator."""

        form: Annotated[
            Literal["softmax", "lsgan"],
            "Form of the origin's loss: cross-entropy over two classes, or a least-squares loss of one score.",
        ] = "softmax"
        l1: Annotated[float, Range(ge=0), "Weight of the sum over classes of the logits' absolute differences."] = 1.0
        adversarial: Annotated[float, Range(ge=0), "Weight of the adversarial loss."] = 0.1
        width: Annotated[
            int | None, Range(ge=1, le=8192), "Hidden width of the discriminator. If null: one unit for each class."
        ] = None
        blocks: Annotated[
            int, Range(ge=0, le=16), "Number of residual blocks of the discriminator, two layers each."
        ] = 1
        discriminator_learning_rate: Annotated[float, Range(gt=0), "Learning rate of the discriminator's own Adam."] = (
            1e-3
        )
        standardise: Standardise = False

    @property
    def adversary_learning_rate(self) -> float:
        return self.settings.discriminator_learning_rate

    def build(self, context: BuildContext) -> None:
        super().build(context)
        p, classes = self.settings, context.student.logits.shape[1]
        origins = 2 if p.form == "softmax" else 1
        self.discriminator = Discriminator(classes, origins, p.width or classes, p.blocks)

    def adversary_parameters(self) -> Iterable[nn.Parameter]:
        return self.discriminator.parameters()

    def adversary_loss(self, step: Step) -> Tensor:
        with fp32(step.student.logits.device):
            student, teacher = self.read(step.student), self.read(step.need_teacher())
            classes, origin = self.discriminator(torch.cat((teacher, student)))
            real, fake = origin.chunk(2)
            return origin_loss(real, fake) + 2 * F.cross_entropy(classes, step.label.repeat(2))

    def forward(self, step: Step) -> dict[str, Tensor]:
        p = self.settings
        fixed = {name: parameter.detach() for name, parameter in self.discriminator.named_parameters()}
        with fp32(step.student.logits.device):
            student, teacher = self.read(step.student), self.read(step.need_teacher())
            classes, origin = functional_call(self.discriminator, fixed, student)
            return {
                "l1": p.l1 * (student - teacher).abs().sum(1).mean(),
                "origin": p.adversarial * taken_for(origin, real=True),
                "class": p.adversarial * F.cross_entropy(classes, step.label),
            }

    def read(self, outputs: Outputs) -> Tensor:
        """Logits as the discriminator reads them, (B, K)."""
        logits = single(outputs.logits)
        return standardise(logits) if self.settings.standardise else logits


class Discriminator(nn.Module):
    """Maps logits (B, K) to scores of the classes (B, K) and of the origins (B, O); every layer has spectral norm 1."""

    def __init__(self, classes: int, origins: int, width: int, blocks: int):
        super().__init__()
        self.sizes = (classes, origins)
        self.first = _linear(classes, width)
        pairs = ((_linear(width, width), _linear(width, width)) for _ in range(blocks))
        self.blocks = nn.ModuleList(nn.Sequential(nn.ReLU(), one, nn.ReLU(), other) for one, other in pairs)
        self.last = _linear(width, classes + origins)

    def forward(self, logits_BK: Tensor) -> tuple[Tensor, Tensor]:
        x = self.first(logits_BK)
        for block in self.blocks:
            x = x + block(x)
        return self.last(F.relu(x)).split(self.sizes, dim=1)


def _linear(inputs: int, outputs: int) -> nn.Module:
    return spectral_norm(nn.Linear(inputs, outputs))


def taken_for(origin_BO: Tensor, real: bool) -> Tensor:
    """Loss of scores of origin against real or fake: cross-entropy of two scores (fake, real), or the squared error
    of one."""
    if origin_BO.shape[1] == 1:
        return (origin_BO - float(real)).square().mean()
    return F.cross_entropy(origin_BO, origin_BO.new_full((len(origin_BO),), int(real), dtype=torch.long))


def origin_loss(real_BO: Tensor, fake_BO: Tensor) -> Tensor:
    """The discriminator's loss: `-log P(real | teacher) - log P(fake | student)`, or `((D_t - 1)^2 + D_s^2) / 2`."""
    loss = taken_for(real_BO, real=True) + taken_for(fake_BO, real=False)
    return loss / 2 if real_BO.shape[1] == 1 else loss
