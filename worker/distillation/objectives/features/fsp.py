"""FSP: match the flow of features from one layer to another."""

from dataclasses import dataclass
from typing import Annotated, Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from worker.distillation.errors import Problem, SpecError
from worker.distillation.introspection.tap_map import TapMap, Taps
from worker.distillation.introspection.taps import pair_stages
from worker.distillation.losses.features import FeatureObjective
from worker.distillation.objective import ObjectiveNeeds
from worker.distillation.parameters import Items, TapPair
from worker.distillation.precision import fp32, single
from worker.distillation.step import Step
from worker.distillation.task import EVERY_TASK


class FlowOfSolutionProcedure(FeatureObjective):
    """Distance between the student's and the teacher's matrices of inner products of the channels of two layers; each
    pair of taps must have as many channels in the student as in the teacher.

    Yim et al., "A gift from knowledge distillation", CVPR 2017, sections 3.2 and 3.3: for each section of a network,
    the first and the last map after an activation, and the squared Frobenius norm of the difference. `adjacent` takes
    the last maps of adjacent resolutions and `mean` the mean of squares, as in HobbitLong/RepDistiller (there with a
    weight of 50). A weight for one scale does not suit the other. The larger of two maps is max-pooled, as in the
    paper. If the default finds only one map at a resolution, it uses that map twice (ours).
    """

    paper = "CVPR 2017, Yim et al., A gift from knowledge distillation"
    needs = ObjectiveNeeds(tasks=EVERY_TASK)

    @dataclass(frozen=True)
    class Parameters:
        """The sections, the taps and the scale."""

        sections: Annotated[
            Literal["within", "adjacent"],
            "How pairs of taps form sections: the first and last tap of each section in turn (`within`), or each "
            "tap with the next (`adjacent`).",
        ] = "within"
        reduction: Annotated[
            Literal["sum", "mean"],
            "Reduction of a matrix's squared differences: their sum, as in the paper, or their mean.",
        ] = "sum"
        taps: Annotated[
            tuple[TapPair, ...] | None,
            Items(least=1),
            "Pairs of a student's and a teacher's tap, in the order of the sections. If null: paired by resolution.",
        ] = None

    def choose_pairs(self, student: TapMap, teacher: TapMap) -> tuple[TapPair, ...]:
        if self.settings.taps is not None:
            return super().choose_pairs(student, teacher)
        last = pair_stages(student, teacher)
        if self.settings.sections == "adjacent":
            return last
        return tuple(end for s, t in last for end in ((first_of(student, s), first_of(teacher, t)), (s, t)))

    def taps(self, student: TapMap, teacher: TapMap | None) -> Taps:
        wanted = super().taps(student, teacher)
        within = self.settings.sections == "within"
        count = len(self.pairs)
        if count < 2 or (within and count % 2):
            words = (
                "an even number of pairs of taps, at least 2, is required"
                if within
                else "at least 2 pairs of taps are required"
            )
            raise SpecError([Problem("/taps", f"{words}, but there are {count}")])
        if teacher is not None:
            self._refuse_other_channels(student, teacher)
        starts, ends = (self.pairs[::2], self.pairs[1::2]) if within else (self.pairs[:-1], self.pairs[1:])
        self.sections = tuple(zip(starts, ends, strict=True))
        return wanted

    def _refuse_other_channels(self, student: TapMap, teacher: TapMap) -> None:
        named = self.settings.taps is not None
        found = [(index, student.channels(s), teacher.channels(t)) for index, (s, t) in enumerate(self.pairs)]
        problems = [
            Problem(
                f"/taps/{index}" if named else "/taps",
                f"tap {self.pairs[index][0]} has {mine} channels, but the teacher's {self.pairs[index][1]} has {theirs}; "
                "choose taps with equal channels, or an objective with connectors",
            )
            for index, mine, theirs in found
            if mine != theirs
        ]
        if problems:
            raise SpecError(problems if named else problems[:1])

    def forward(self, step: Step) -> dict[str, Tensor]:
        student, teacher = step.student.taps, step.need_teacher().taps
        terms = {}
        for (s1, t1), (s2, t2) in self.sections:
            with fp32(step.student.logits.device):
                mine, theirs = (
                    flow(single(student[s1]), single(student[s2])),
                    flow(single(teacher[t1]), single(teacher[t2])),
                )
                squares = (mine - theirs).square()
            terms[f"{s1}>{s2}~{t1}>{t2}"] = (
                squares.mean() if self.settings.reduction == "mean" else squares.sum((1, 2)).mean()
            )
        return terms


def flow(first_BCHW: Tensor, second_BDHW: Tensor) -> Tensor:
    """Inner products (B, C, D) of two layers' channels, averaged over the positions of the smaller map; the larger
    is max-pooled."""
    size = tuple(min(one, other) for one, other in zip(first_BCHW.shape[2:], second_BDHW.shape[2:], strict=True))
    first, second = (F.adaptive_max_pool2d(maps, size).flatten(2) for maps in (first_BCHW, second_BDHW))
    return torch.bmm(first, second.mT) / first.shape[2]


def first_of(map_: TapMap, last: str) -> str:
    """The first tap at the resolution of `last` that follows an activation, in order of execution; if there is none,
    `last`."""
    size = map_.shapes[last][1:]
    before = list(map_.shapes)[: list(map_.shapes).index(last)]
    activated = (tap for tap in before if map_.shapes.get(f"{tap}:pre") == map_.shapes[tap])
    return next((tap for tap in activated if map_.shapes[tap][1:] == size), last)
