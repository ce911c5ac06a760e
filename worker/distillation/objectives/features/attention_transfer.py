"""Attention transfer: where the networks look."""

from dataclasses import dataclass
from typing import Annotated, Literal

import torch.nn.functional as F
from torch import Tensor

from worker.distillation.losses.features import FeatureObjective, same_size
from worker.distillation.objective import ObjectiveNeeds
from worker.distillation.parameters import Items, Range, TapPair
from worker.distillation.precision import fp32, single
from worker.distillation.step import Step
from worker.distillation.task import EVERY_TASK

Map = Literal["sum", "sum_power", "max_power"]


class AttentionTransfer(FeatureObjective):
    """Distance of the networks' normalised spatial attention maps, in pairs of layers.

    Zagoruyko, Komodakis, "Paying more attention to attention", arXiv:1612.03928, section 3.1. `reduction` names the
    scale: `repo` is the mean of squared differences that the authors' code (szagoruyko/attention-transfer) multiplies by
    1000, `paper` the mean of norms that the paper multiplies by beta / 2; their weights differ. Default pairs are ours.
    """

    paper = "arXiv:1612.03928"
    needs = ObjectiveNeeds(tasks=EVERY_TASK)

    @dataclass(frozen=True)
    class Parameters:
        """Which map is compared, where, and on what scale."""

        map: Annotated[Map, "The map: sum of |a|, sum of |a|^power or maximum of |a|^power over channels."] = (
            "sum_power"
        )
        power: Annotated[float, Range(ge=1, le=8), "The exponent of sum_power and max_power."] = 2.0
        reduction: Annotated[
            Literal["repo", "paper"], "Mean of squared differences, or mean over samples of the difference's norm."
        ] = "repo"
        taps: Annotated[
            tuple[TapPair, ...] | None,
            Items(least=1),
            "Pairs of student's and teacher's tap; null pairs by resolution.",
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
    """Attention (B, H * W), its rows of Euclidean norm 1."""
    magnitude = features_BCHW.abs().flatten(2)
    if map_ != "sum":
        magnitude = magnitude**power
    return F.normalize(magnitude.amax(1) if map_ == "max_power" else magnitude.sum(1), dim=1)


def distance(student_BN: Tensor, teacher_BN: Tensor, reduction: Literal["repo", "paper"]) -> Tensor:
    """Mean of squared differences (`repo`), or mean over samples of the Euclidean norm of the difference (`paper`)."""
    difference = student_BN - teacher_BN
    return difference.square().mean() if reduction == "repo" else difference.norm(dim=1).mean()
