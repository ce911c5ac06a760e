"""Attention transfer: match the spatial attention maps."""

from dataclasses import dataclass
from typing import Annotated, Literal

import torch.nn.functional as F
from torch import Tensor

from worker.distillation.losses.features import FeatureObjective, same_size
from worker.distillation.objective import ObjectiveNeeds
from worker.distillation.parameters import Items, Range, TapPair
from worker.distillation.precision import fp32, single
from worker.distillation.step import Step
from worker.distillation.task import DENSE_TASKS, EVERY_TASK

Map = Literal["sum", "sum_power", "max_power"]


class AttentionTransfer(FeatureObjective):
    """Distance between normalised spatial attention maps of student and teacher, by pairs of layers.

    Zagoruyko, Komodakis, "Paying more attention to attention", arXiv:1612.03928, section 3.1. `reduction` sets the
    scale: `repo` is the mean of squared differences, which the authors' code (szagoruyko/attention-transfer) multiplies
    by 1000; `paper` is the mean of norms, which the paper multiplies by beta / 2. Their weights differ. The default
    pairs are ours.
    """

    paper = "arXiv:1612.03928"
    needs = ObjectiveNeeds(tasks=(*EVERY_TASK, *DENSE_TASKS))

    @dataclass(frozen=True)
    class Parameters:
        """The attention map, the taps and the scale."""

        map: Annotated[Map, "Attention map: sum of |a|, sum of |a|^power or maximum of |a|^power over channels."] = (
            "sum_power"
        )
        power: Annotated[float, Range(ge=1, le=8), "Exponent of `sum_power` and `max_power`."] = 2.0
        reduction: Annotated[
            Literal["repo", "paper"], "Mean of squared differences, or mean over samples of the norm of the difference."
        ] = "repo"
        taps: Annotated[
            tuple[TapPair, ...] | None,
            Items(least=1),
            "Pairs of a student's and a teacher's tap. If null: paired by resolution.",
        ] = None

    def forward(self, step: Step) -> dict[str, Tensor]:
        return self.over_pairs(step, self.compare)

    def compare(self, student: Tensor, teacher: Tensor) -> Tensor:
        with fp32(student.device):
            maps = same_size(single(student), single(teacher))
            p = self.settings
            mine, theirs = (attention(features, p.map, p.power) for features in maps)
            return distance(mine, theirs, p.reduction)


def attention(features_BCHW: Tensor, map_: Map, power: float) -> Tensor:
    """Attention maps (B, H * W); every row has Euclidean norm 1."""
    magnitude = features_BCHW.abs().flatten(2)
    if map_ != "sum":
        magnitude = magnitude**power
    return F.normalize(magnitude.amax(1) if map_ == "max_power" else magnitude.sum(1), dim=1)


def distance(student_BN: Tensor, teacher_BN: Tensor, reduction: Literal["repo", "paper"]) -> Tensor:
    """Mean of squared differences (`repo`), or mean over samples of the Euclidean norm of the difference (`paper`)."""
    difference = student_BN - teacher_BN
    return difference.square().mean() if reduction == "repo" else difference.norm(dim=1).mean()
