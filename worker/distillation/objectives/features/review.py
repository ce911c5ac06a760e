"""Review: match the teacher's features with a fusion of the student's features of that depth and deeper."""

from dataclasses import dataclass
from typing import Annotated

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from worker.distillation.introspection.tap_map import TapMap, Taps
from worker.distillation.introspection.taps import resolve_pairs
from worker.distillation.losses.features import FeatureObjective, before_activations
from worker.distillation.objective import BuildContext, ObjectiveNeeds
from worker.distillation.parameters import Items, Range, TapPair
from worker.distillation.precision import fp32, single
from worker.distillation.step import Step
from worker.distillation.task import EVERY_TASK

LEVELS = (4, 2, 1)
"""Sizes in pixels to which maps are average-pooled; each has half the weight of the one before."""
POOLED = "pooled"


class Review(FeatureObjective):
    """Distance of the teacher's features at each depth from a trained fusion of the student's features of that depth
    and deeper.

    Chen et al., "Distilling knowledge via knowledge review", CVPR 2021, arXiv:2104.09044, section 3. The fusion goes
    from deep to shallow. Fusion and loss are those of the authors' code (dvlab-research/ReviewKD), which reads the
    student after and the teacher before the activation and adds the pooled features as the deepest level. Its weights
    are 0.6 to 8, depending on the pair of networks, and rise linearly over the first 20 epochs: set this in the
    objective's weight. The default pairs are ours.
    """

    paper = "arXiv:2104.09044"
    needs = ObjectiveNeeds(tasks=EVERY_TASK)

    @dataclass(frozen=True)
    class Parameters:
        """The width of the fusion, and the taps to compare."""

        width: Annotated[
            int,
            Range(ge=1, le=4096),
            "Number of channels of the fused features, at most that of the student's deepest map.",
        ] = 512
        taps: Annotated[
            tuple[TapPair, ...] | None,
            Items(least=1),
            "Pairs of a student's and a teacher's tap, from shallow to deep. If null: paired by resolution, with "
            "the teacher's `:pre` taps.",
        ] = None

    def choose_pairs(self, student: TapMap, teacher: TapMap) -> tuple[TapPair, ...]:
        return resolve_pairs(self.settings.taps, student, before_activations(teacher))

    def taps(self, student: TapMap, teacher: TapMap | None) -> Taps:
        wanted = super().taps(student, teacher)
        self.pooled = (self.pairs[-1][0], self.pairs[-1][1].removesuffix(":pre"))
        return Taps(wanted.student, tuple(dict.fromkeys((*wanted.teacher, self.pooled[1]))))

    def build(self, context: BuildContext) -> None:
        super().build(context)
        student, teacher = self._levels(context.student.taps, (context.teacher or context.student).taps)
        width = min(self.settings.width, student[0].shape[1])
        self.fusions = nn.ModuleList(
            Fusion(mine.shape[1], width, theirs.shape[1], fuses=index > 0)
            for index, (mine, theirs) in enumerate(zip(student, teacher, strict=True))
        )

    def forward(self, step: Step) -> dict[str, Tensor]:
        deeper: Tensor | None = None
        terms = {}
        names = (POOLED, *(f"{s}~{t}" for s, t in reversed(self.pairs)))
        levels = zip(names, self.fusions, *self._levels(step.student.taps, step.need_teacher().taps), strict=True)
        for name, fuse, mine, theirs in levels:
            made, deeper = fuse(mine, deeper, theirs.shape[2:])
            terms[name] = hierarchical_distance(made, theirs)
        return terms

    def _levels(self, student: dict[str, Tensor], teacher: dict[str, Tensor]) -> tuple[list[Tensor], list[Tensor]]:
        """Maps of both networks, deepest first: the pooled deepest map, then the taps."""
        mine, theirs = [student[s] for s, _ in reversed(self.pairs)], [teacher[t] for _, t in reversed(self.pairs)]
        pooled = (
            F.adaptive_avg_pool2d(maps[tap], 1) for maps, tap in zip((student, teacher), self.pooled, strict=True)
        )
        return [next(pooled), *mine], [next(pooled), *theirs]


class Fusion(nn.Module):
    """Mixes a student's map, position by position, with the fusion of the deeper maps, and predicts the teacher's
    map."""

    def __init__(self, student: int, width: int, teacher: int, fuses: bool):
        super().__init__()
        self.reduce = nn.Sequential(nn.Conv2d(student, width, 1, bias=False), nn.BatchNorm2d(width))
        self.predict = nn.Sequential(nn.Conv2d(width, teacher, 3, padding=1, bias=False), nn.BatchNorm2d(teacher))
        self.gate = nn.Conv2d(2 * width, 2, 1) if fuses else None
        for part in (self.reduce, self.predict):
            nn.init.kaiming_uniform_(part.get_parameter("0.weight"), a=1)

    def forward(self, student: Tensor, deeper: Tensor | None, size: torch.Size) -> tuple[Tensor, Tensor]:
        """The prediction, of the teacher's `size`, and the fused map that is passed to the next shallower level."""
        fused = self.reduce(student)
        if self.gate is not None and deeper is not None:
            deeper = F.interpolate(deeper, fused.shape[2:], mode="nearest")
            gate = self.gate(torch.cat([fused, deeper], 1)).sigmoid()
            fused = fused * gate[:, :1] + deeper * gate[:, 1:]
        fused = F.interpolate(fused, size, mode="nearest")
        return self.predict(fused), fused


def hierarchical_distance(student: Tensor, teacher: Tensor) -> Tensor:
    """Weighted mean of the mean squared differences of two maps (B, C, H, W), at full size and average-pooled to
    smaller sizes."""
    with fp32(student.device):
        student, teacher = single(student), single(teacher)
        total = F.mse_loss(student, teacher)
        weight = 1.0
        weights = 1.0
        for size in LEVELS:
            if size < min(teacher.shape[2:]):
                weight /= 2
                mine, theirs = (F.adaptive_avg_pool2d(maps, size) for maps in (student, teacher))
                total = total + weight * F.mse_loss(mine, theirs)
                weights += weight
        return total / weights
