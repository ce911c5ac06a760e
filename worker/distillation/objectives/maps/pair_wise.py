"""Pair-wise distillation: how similar the features of any two places are."""

from dataclasses import dataclass
from typing import Annotated

from torch import Tensor

from worker.distillation.introspection.tap_map import TapMap
from worker.distillation.losses.features import FeatureObjective
from worker.distillation.losses.maps import affinity
from worker.distillation.objective import ObjectiveNeeds
from worker.distillation.parameters import Items, Range, TapPair
from worker.distillation.precision import fp32, single
from worker.distillation.step import Step
from worker.distillation.task import MAP_TASKS


class PairWise(FeatureObjective):
    """Mean squared difference of the cosine similarities between places of the networks' feature maps, which are max-pooled to a
    grid; channel counts may differ.

    Liu et al., "Structured knowledge distillation for dense prediction", arXiv:1903.04197, equation 2. A grid of 2x2 and a norm
    without gradient are those of the authors' code (irfanICMLL/structure_knowledge_distillation). The default tap, the finest
    features before the classes, is ours.
    """

    paper = "arXiv:1903.04197"
    needs = ObjectiveNeeds(tasks=MAP_TASKS)

    @dataclass(frozen=True)
    class Parameters:
        """The grid, and the taps to compare."""

        grid: Annotated[int, Range(ge=2, le=64), "Rows and columns of places."] = 2
        taps: Annotated[
            tuple[TapPair, ...] | None,
            Items(least=1),
            "Pairs of a student's and a teacher's tap. If null: the pair of the highest resolution.",
        ] = None

    def choose_pairs(self, student: TapMap, teacher: TapMap) -> tuple[TapPair, ...]:
        pairs = super().choose_pairs(student, teacher)
        return pairs if self.settings.taps is not None else pairs[:1]

    def forward(self, step: Step) -> dict[str, Tensor]:
        return self.over_pairs(step, self.compare)

    def compare(self, student: Tensor, teacher: Tensor) -> Tensor:
        with fp32(student.device):
            mine, theirs = (affinity(single(each), self.settings.grid) for each in (student, teacher))
            return (mine - theirs).square().mean()
