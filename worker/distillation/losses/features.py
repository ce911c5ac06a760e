"""Base class and functions of objectives on feature maps: pairs of taps, and pooling to a common size."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import ClassVar

import torch.nn.functional as F
from torch import Tensor

from worker.distillation.errors import Problem, SpecError
from worker.distillation.introspection.tap_map import TapMap, Taps, refuse_default_tap
from worker.distillation.introspection.taps import resolve_pairs
from worker.distillation.objective import Objective
from worker.distillation.parameters import TapPair
from worker.distillation.step import Step


class FeatureObjective(Objective):
    """An objective that compares pairs of taps, named by its parameter `taps` (null: the last map at each resolution)."""

    dimensions: ClassVar[tuple[int, ...]] = (4,)
    """Numbers of dimensions that a tap may have, including the batch."""

    @dataclass(frozen=True)
    class Parameters:
        """Parameters of every such objective."""

        taps: tuple[TapPair, ...] | None = None

    def choose_pairs(self, student: TapMap, teacher: TapMap) -> tuple[TapPair, ...]:
        return resolve_pairs(self.settings.taps, student, teacher)

    def taps(self, student: TapMap, teacher: TapMap | None) -> Taps:
        if teacher is None:
            raise SpecError([Problem("/name", "needs a teacher")])
        self.pairs = self.choose_pairs(student, teacher)
        if self.settings.taps is None:
            refuse_default_tap(teacher, self.pairs, "/taps")
        problems = [
            Problem(
                f"/taps/{index}", f"{mismatch}; choose taps with {' or '.join(map(str, self.dimensions))} dimensions"
            )
            for index, (mine, theirs) in enumerate(self.pairs)
            if (mismatch := self._mismatch(student.shape(mine) or (), teacher.shape(theirs) or ()))
        ]
        if problems:
            raise SpecError(problems)
        return Taps(*(tuple(dict.fromkeys(side)) for side in zip(*self.pairs, strict=True)))

    def _mismatch(self, student: tuple[int, ...], teacher: tuple[int, ...]) -> str:
        mine, theirs = len(student) + 1, len(teacher) + 1
        if mine == theirs and mine in self.dimensions:
            return ""
        return f"the student's tap has {mine} dimensions and the teacher's {theirs}, including the batch"

    def over_pairs(self, step: Step, compare: Callable[[Tensor, Tensor], Tensor]) -> dict[str, Tensor]:
        """`compare(student's tap, teacher's tap)` for each pair, named `STUDENT~TEACHER`."""
        student, teacher = step.student.taps, step.need_teacher().taps
        return {f"{mine}~{theirs}": compare(student[mine], teacher[theirs]) for mine, theirs in self.pairs}


def before_activations(map_: TapMap) -> TapMap:
    """The tap map with the values before the activation in place of each stage."""
    return replace(
        map_, stages=tuple(map_.before_activation[tap] for tap in map_.stages if tap in map_.before_activation)
    )


def same_size(first: Tensor, second: Tensor) -> tuple[Tensor, Tensor]:
    """Two maps (B, C, H, W), each average-pooled to the smaller height and the smaller width of the two."""
    size = (min(first.shape[2], second.shape[2]), min(first.shape[3], second.shape[3]))
    return _pooled(first, size), _pooled(second, size)


def _pooled(x: Tensor, size: tuple[int, int]) -> Tensor:
    return x if tuple(x.shape[2:]) == size else F.adaptive_avg_pool2d(x, size)
