"""Overhaul: match features before the activation, except those that the teacher's activation removes."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated

import torch
from torch import Tensor, nn

from worker.distillation.errors import Problem, SpecError
from worker.distillation.introspection.batch_norm_before import normalisation_before
from worker.distillation.introspection.tap_map import TapMap, Taps
from worker.distillation.introspection.taps import resolve_pairs
from worker.distillation.losses.features import FeatureObjective, before_activations, same_size
from worker.distillation.objective import BuildContext, ObjectiveNeeds
from worker.distillation.parameters import Items, Range, TapPair
from worker.distillation.precision import fp32, single
from worker.distillation.step import Step
from worker.distillation.task import EVERY_TASK

RARE = 0.001
"""If less than this share of a channel's values is negative, its margin is -3 standard deviations of the channel."""
EPSILON = 1e-6
"""Minimum standard deviation of a channel, and minimum size of a margin; ours."""


class Overhaul(FeatureObjective):
    """Squared distance of the features before the activation; the teacher's are clipped below at a negative margin.

    Heo et al., "A comprehensive overhaul of feature distillation", ICCV 2019, arXiv:1904.01866, sections 3.1 to 3.3. A
    channel's margin is the mean of its negative values, computed from the weight and bias of the teacher's batch
    normalisation before the activation. The scale, the connectors and the weights, which halve from each layer to the
    next shallower one, are those of the authors' code (clovaai/overhaul-distillation; 0.001 on CIFAR, 0.0001 on
    ImageNet). Unlike there, the teacher stays in evaluation mode. The default pairs, and average-pooling of the larger
    of two maps, are ours.
    """

    paper = "arXiv:1904.01866"
    needs = ObjectiveNeeds(tasks=EVERY_TASK)

    @dataclass(frozen=True)
    class Parameters:
        """The scale, and the taps to compare."""

        scale: Annotated[float, Range(gt=0), "Factor of the sum of squares over a sample's features."] = 0.001
        taps: Annotated[
            tuple[TapPair, ...] | None,
            Items(least=1),
            "Pairs of a student's and a teacher's tap, from shallow to deep. If null: the `:pre` taps, paired by "
            "resolution.",
        ] = None

    def choose_pairs(self, student: TapMap, teacher: TapMap) -> tuple[TapPair, ...]:
        return resolve_pairs(self.settings.taps, before_activations(student), before_activations(teacher))

    def taps(self, student: TapMap, teacher: TapMap | None) -> Taps:
        wanted = super().taps(student, teacher)
        self.order = tuple(teacher.shapes) if teacher else ()
        return wanted

    def build(self, context: BuildContext) -> None:
        super().build(context)
        student, teacher = context.student.taps, (context.teacher or context.student).taps
        norms = self._normalisations(context.teacher_network or context.student_network, [t for _, t in self.pairs])
        self.connectors = nn.ModuleList(connector(student[s].shape[1], teacher[t].shape[1]) for s, t in self.pairs)
        for index, norm in enumerate(norms):
            self.register_buffer(f"margin{index}", margins(norm))

    def _normalisations(self, network: nn.Module, taps: Sequence[str]) -> list[nn.BatchNorm2d]:
        norms = [normalisation_before(network, tap, self.order) for tap in taps]
        problems = [
            Problem(
                "/taps" if self.settings.taps is None else f"/taps/{index}/1",
                f"cannot compute margins: the teacher has no BatchNorm directly before the activation of {tap!r}",
            )
            for index, (tap, norm) in enumerate(zip(taps, norms, strict=True))
            if norm is None
        ]
        if problems:
            raise SpecError(problems, "Choose the teacher's `:pre` taps that follow a BatchNorm, or another objective.")
        return [norm for norm in norms if norm is not None]

    def forward(self, step: Step) -> dict[str, Tensor]:
        parts = iter(zip(self.connectors, (self.get_buffer(f"margin{i}") for i in range(len(self.pairs))), strict=True))
        terms = self.over_pairs(step, lambda student, teacher: self.compare(student, teacher, *next(parts)))
        deepest = len(terms) - 1
        return {name: term / 2 ** (deepest - index) for index, (name, term) in enumerate(terms.items())}

    def compare(self, student: Tensor, teacher: Tensor, connect: nn.Module, margin: Tensor) -> Tensor:
        connected = connect(student)
        with fp32(connected.device):
            mine, theirs = same_size(single(connected), single(teacher))
            squares = partial_squares(mine, theirs.maximum(margin.to(theirs.dtype).view(-1, 1, 1)))
            return self.settings.scale * squares.flatten(1).sum(1).mean()


def partial_squares(student: Tensor, target: Tensor) -> Tensor:
    """Squared differences; 0 where the target is not positive and the student is at most the target."""
    return (student - target).square() * ((student > target) | (target > 0))


def margins(norm: nn.BatchNorm2d) -> Tensor:
    """The mean of each channel's negative values (C,), if its values are normal with the layer's bias as mean and
    the size of its weight as deviation."""
    shape = norm.num_features
    mean = torch.zeros(shape) if norm.bias is None else norm.bias.detach()
    deviation = (torch.ones(shape) if norm.weight is None else norm.weight.detach().abs()).double()
    mean, deviation = mean.double().to(deviation.device), deviation.clamp_min(EPSILON)
    ratio = mean / deviation
    density = (-0.5 * ratio.square()).exp() / math.sqrt(2 * math.pi)
    below = torch.special.ndtr(-ratio)
    expected = mean - deviation * density / below.clamp_min(RARE)
    return torch.where(below > RARE, expected, -3 * deviation).clamp_max(-EPSILON).float()


def connector(student: int, teacher: int) -> nn.Sequential:
    """A 1x1 convolution and batch normalisation; the convolution's weights are initialised with a deviation of
    sqrt(2 / teacher)."""
    convolution = nn.Conv2d(student, teacher, 1, bias=False)
    nn.init.normal_(convolution.weight, 0.0, math.sqrt(2 / teacher))
    return nn.Sequential(convolution, nn.BatchNorm2d(teacher))
