"""Activation boundary transfer: match the signs of the neurons before the activation."""

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
    """Squared distance of the student's neurons from the teacher's side of zero, with a margin, before the activation.

    Heo et al., "Knowledge transfer via distillation of activation boundaries formed by hidden neurons", AAAI 2019,
    arXiv:1811.03233, section 3. The scale, and the weights, which halve from each layer to the next shallower one, are
    those of the authors' code (bhheo/AB_distillation). Where channels differ, a connector (a 1x1 convolution and batch
    normalisation) maps the student's. The authors first train on this loss alone, and then by KD alone: see the
    procedure `two_stage`. The default pairs, and average-pooling of the larger of two maps, are ours.
    """

    paper = "arXiv:1811.03233"
    needs = ObjectiveNeeds(tasks=EVERY_TASK)

    @dataclass(frozen=True)
    class Parameters:
        """The margin, and the taps to compare."""

        margin: Annotated[float, Range(gt=0), "Distance beyond zero up to which the student's neurons are pushed."] = (
            1.0
        )
        scale: Annotated[float, Range(gt=0), "Factor of the sum over neurons. The authors' code uses 0.003."] = 0.003
        taps: Annotated[
            tuple[TapPair, ...] | None,
            Items(least=1),
            "Pairs of a student's and a teacher's tap, from shallow to deep. If null: the `:pre` taps, paired by "
            "resolution.",
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
    """Squared distance of each neuron from `margin` beyond zero on the teacher's side; 0 if the neuron is beyond
    that."""
    inactive = (student + margin).relu().square()
    active = (margin - student).relu().square()
    return active.where(teacher > 0, inactive)


def connector(student: int, teacher: int) -> nn.Module:
    """A 1x1 convolution and batch normalisation if the numbers of channels differ, else the identity."""
    if student == teacher:
        return nn.Identity()
    return nn.Sequential(nn.Conv2d(student, teacher, 1, bias=False), nn.BatchNorm2d(teacher))
