"""Activation boundaries: on which side of zero a neuron lies."""

from dataclasses import dataclass
from typing import Annotated

from torch import Tensor, nn

from worker.distillation.introspection.tap_map import TapMap
from worker.distillation.introspection.taps import resolve_pairs
from worker.distillation.losses.features import FeatureObjective, before_activations, same_size
from worker.distillation.objective import BuildContext, ObjectiveNeeds
from worker.distillation.parameters import Items, Range, TapPair
from worker.distillation.precision import fp32, single
from worker.distillation.step import Step
from worker.distillation.task import EVERY_TASK


class ActivationBoundary(FeatureObjective):
    """How far the student's neurons lie on the wrong side of zero, or within a margin of it, before the activation.

    Heo et al., "Knowledge transfer via distillation of activation boundaries formed by hidden neurons", AAAI 2019,
    arXiv:1811.03233, section 3. The scale, and weights that halve from each layer to the one below, are those of the
    authors' code (bhheo/AB_distillation). Connectors, a 1x1 convolution and batch normalisation, stand where channels
    differ. The authors train on this alone first, and then by KD alone: see the procedure `two_stage`. Default pairs, and
    averaging down of the larger of two maps, are ours.
    """

    paper = "arXiv:1811.03233"
    needs = ObjectiveNeeds(tasks=EVERY_TASK)

    @dataclass(frozen=True)
    class Parameters:
        """The margin, and where it is kept."""

        margin: Annotated[float, Range(gt=0), "How far beyond zero the student's neurons are pushed."] = 1.0
        scale: Annotated[float, Range(gt=0), "Multiplies the sum over neurons; the authors' code has 0.003."] = 0.003
        taps: Annotated[
            tuple[TapPair, ...] | None,
            Items(least=1),
            "Pairs of student's and teacher's tap, shallow to deep; null takes the `:pre` taps, paired by resolution.",
        ] = None

    def choose_pairs(self, student: TapMap, teacher: TapMap) -> tuple[TapPair, ...]:
        return resolve_pairs(self.settings.taps, before_activations(student), before_activations(teacher))

    def build(self, context: BuildContext) -> None:
        super().build(context)
        student, teacher = context.student.taps, (context.teacher or context.student).taps
        self.connectors = nn.ModuleList(connector(student[s].shape[1], teacher[t].shape[1]) for s, t in self.pairs)

    def forward(self, step: Step) -> dict[str, Tensor]:
        connect = iter(self.connectors)
        terms = self.over_pairs(step, lambda student, teacher: self.compare(next(connect)(student), teacher))
        deepest = len(terms) - 1
        return {name: term / 2 ** (deepest - index) for index, (name, term) in enumerate(terms.items())}

    def compare(self, connected: Tensor, teacher: Tensor) -> Tensor:
        with fp32(connected.device):
            student, teacher = same_size(single(connected), single(teacher))
            neurons = boundary_loss(student, teacher, self.settings.margin)
            return self.settings.scale * neurons.flatten(1).sum(1).mean()


def boundary_loss(student: Tensor, teacher: Tensor, margin: float) -> Tensor:
    """Squared distance of each neuron from `margin` beyond zero on the teacher's side, 0 where it is beyond that."""
    inactive = (student + margin).relu().square()
    active = (margin - student).relu().square()
    return active.where(teacher > 0, inactive)


def connector(student: int, teacher: int) -> nn.Module:
    """A 1x1 convolution and batch normalisation where the numbers of channels differ, else nothing."""
    if student == teacher:
        return nn.Identity()
    return nn.Sequential(nn.Conv2d(student, teacher, 1, bias=False), nn.BatchNorm2d(teacher))
