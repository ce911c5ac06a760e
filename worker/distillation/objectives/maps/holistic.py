"""Holistic distillation: a critic that tells the student's maps of probabilities from the teacher's."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Annotated

import torch
from torch import Tensor, nn
from torch.func import functional_call

from worker.distillation.losses.maps import sized
from worker.distillation.objective import BuildContext, Objective, ObjectiveNeeds
from worker.distillation.parameters import Range
from worker.distillation.precision import fp32, single
from worker.distillation.step import Outputs, Step

GROUPS = 4


class Holistic(Objective):
    """A Wasserstein loss: the student trains so that a critic, which sees an image and a map of class probabilities, gives its maps the
    score of the teacher's.

    Liu et al., "Structured knowledge distillation for dense prediction", arXiv:1903.04197, section 3.3, with the gradient penalty of
    Gulrajani et al., arXiv:1704.00028, and a weight of 10 for it. The critic reads probabilities and the image, as the paper says; the
    authors' code reads raw logits alone. Its layers, with group normalisation, which keeps samples apart as the penalty needs, and its
    optimiser Adam are ours. Half-trained critics push students away from their labels: keep `pixel_wise` and a small weight beside it.
    """

    paper = "arXiv:1903.04197"
    needs = ObjectiveNeeds(logits=True, tasks=("segmentation",))

    @dataclass(frozen=True)
    class Parameters:
        """The critic."""

        width: Annotated[
            int, Range(ge=4, le=512), "Channels of the critic's first layer; twice as many in each next one."
        ] = 32
        layers: Annotated[int, Range(ge=1, le=6), "Layers of stride 2."] = 3
        penalty: Annotated[float, Range(ge=0), "Weight of the gradient penalty in the critic's loss."] = 10.0
        critic_learning_rate: Annotated[float, Range(gt=0), "Learning rate of the critic's own Adam."] = 4e-4

    @property
    def adversary_learning_rate(self) -> float:
        return self.settings.critic_learning_rate

    def build(self, context: BuildContext) -> None:
        super().build(context)
        classes, p = context.student.logits.shape[1], self.settings
        first = next(each for each in context.student_network.modules() if isinstance(each, nn.Conv2d))
        self.critic = Critic(first.in_channels + classes, p.width, p.layers)

    def adversary_parameters(self) -> Iterable[nn.Parameter]:
        return self.critic.parameters()

    def adversary_loss(self, step: Step) -> Tensor:
        """`mean critic(student) - mean critic(teacher) + penalty`, of detached outputs."""
        with fp32(step.student.logits.device):
            student, teacher = self.read(step.student, step), self.read(step.need_teacher(), step)
            loss = self.critic(student).mean() - self.critic(teacher).mean()
            share = _shares(step).to(student)
            return loss + self.settings.penalty * gradient_penalty(self.critic, student, teacher, share)

    def forward(self, step: Step) -> dict[str, Tensor]:
        fixed = {name: parameter.detach() for name, parameter in self.critic.named_parameters()}
        with fp32(step.student.logits.device):
            return {"holistic": -functional_call(self.critic, fixed, self.read(step.student, step)).mean()}

    def read(self, outputs: Outputs, step: Step) -> Tensor:
        """What the critic reads (B, C + K, H, W): the image, and the probabilities."""
        image = single(step.batch.image).detach()
        logits = sized(single(outputs.logits), tuple(image.shape[2:]))
        return torch.cat([image, logits.softmax(1)], dim=1)


class Critic(nn.Module):
    """Maps (B, C, H, W) to scores (B,)."""

    def __init__(self, inputs: int, width: int, layers: int):
        super().__init__()
        width = -(-width // GROUPS) * GROUPS
        widths = [width * 2**number for number in range(layers)]
        self.layers = nn.Sequential()
        for before, after in zip([inputs, *widths], widths, strict=False):
            self.layers.append(nn.Conv2d(before, after, 3, stride=2, padding=1))
            self.layers.append(nn.GroupNorm(GROUPS, after))
            self.layers.append(nn.LeakyReLU(0.2))
        self.last = nn.Conv2d(widths[-1], 1, 1)

    def forward(self, x: Tensor) -> Tensor:
        return self.last(self.layers(x)).mean((1, 2, 3))


def gradient_penalty(critic: nn.Module, student: Tensor, teacher: Tensor, share_B: Tensor) -> Tensor:
    """`mean (|gradient of the critic| - 1)²` at points between the student's and the teacher's maps, `share` of the way from the
    teacher's; arXiv:1704.00028, equation 3."""
    share = share_B.view(-1, 1, 1, 1)
    between = (share * student + (1 - share) * teacher).detach().requires_grad_(True)
    (gradient,) = torch.autograd.grad(critic(between).sum(), between, create_graph=True)
    return (gradient.flatten(1).norm(dim=1) - 1).square().mean()


def _shares(step: Step) -> Tensor:
    """A number from 0 to 1 for each sample (B,), drawn for the whole batch by the number of the step."""
    division = step.batch.division
    count = sum(division.sizes) if division.sizes else len(step.batch.image)
    return torch.rand(count, generator=torch.Generator().manual_seed(step.number))[division.rows]
