"""Hints: match the teacher's features through a regressor."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, Literal

import torch.nn.functional as F
from torch import Tensor, nn

from worker.distillation.introspection.tap_map import TapMap
from worker.distillation.introspection.taps import pair_stages
from worker.distillation.losses.features import FeatureObjective, same_size
from worker.distillation.objective import BuildContext, ObjectiveNeeds
from worker.distillation.parameters import Items, TapPair
from worker.distillation.precision import single
from worker.distillation.step import Step
from worker.distillation.task import DENSE_TASKS, EVERY_TASK

Form = Literal["one_stage", "paper"]


class Hint(FeatureObjective):
    """Distance of the student's features, mapped by a trained regressor, from the teacher's features.

    Romero et al., "FitNets: hints for thin deep nets", arXiv:1412.6550, section 2.2. `paper` follows that section: one
    valid convolution and the nonlinearity; half the squares, summed over channels (as in the authors'
    adri-romsor/FitNets) and averaged over the rest. `one_stage` is what HobbitLong/RepDistiller trains with a weight of
    100 beside the student's other objectives: a convolution, batch normalisation and the nonlinearity; the mean of
    squares. For vectors the regressor is linear (ours). If the teacher's map is larger, it is average-pooled (ours). By
    default the middle pair is compared.
    """

    paper = "arXiv:1412.6550"
    needs = ObjectiveNeeds(tasks=(*EVERY_TASK, *DENSE_TASKS))
    dimensions = (4, 2)

    @dataclass(frozen=True)
    class Parameters:
        """The regressor, and the taps to compare."""

        form: Annotated[
            Form, "Regressor and scale: those of the public benchmark (`one_stage`), or those of the paper."
        ] = "one_stage"
        activation: Annotated[
            Literal["relu", "none"],
            "Nonlinearity of the regressor. Use that of the teacher's layer, and `none` for `:pre` taps.",
        ] = "relu"
        taps: Annotated[
            tuple[TapPair, ...] | None,
            Items(least=1),
            "Pairs of a student's and a teacher's tap. If null: the middle pair.",
        ] = None

    def choose_pairs(self, student: TapMap, teacher: TapMap) -> tuple[TapPair, ...]:
        if self.settings.taps is not None:
            return super().choose_pairs(student, teacher)
        pairs = pair_stages(student, teacher)
        return (pairs[len(pairs) // 2],)

    def build(self, context: BuildContext) -> None:
        super().build(context)
        student, teacher = context.student.taps, (context.teacher or context.student).taps
        p = self.settings
        self.regressors = nn.ModuleList(
            regressor(
                student[s].shape[1:], teacher[t].shape[1:], p.form, p.activation == "relu" and not t.endswith(":pre")
            )
            for s, t in self.pairs
        )

    def forward(self, step: Step) -> dict[str, Tensor]:
        regress = iter(self.regressors)
        return self.over_pairs(step, lambda student, teacher: self.compare(next(regress)(student), teacher))

    def compare(self, regressed: Tensor, teacher: Tensor) -> Tensor:
        mine, theirs = single(regressed), single(teacher)
        if mine.ndim == 4:
            mine, theirs = same_size(mine, theirs)
        if self.settings.form == "paper":
            return 0.5 * (mine - theirs).square().sum(1).mean()
        return F.mse_loss(mine, theirs)


def regressor(student: Sequence[int], teacher: Sequence[int], form: Form, relu: bool) -> nn.Sequential:
    """Maps features of shape `student` (C, H, W) or (C,) to the channels of `teacher`, and to its size if that is
    smaller."""
    layers = nn.Sequential()
    if len(student) == 1:
        layers.append(nn.Linear(student[0], teacher[0]))
    else:
        layers.append(_convolution(tuple(student), tuple(teacher), form))
    if form == "one_stage":
        layers.append(nn.BatchNorm1d(teacher[0]) if len(student) == 1 else nn.BatchNorm2d(teacher[0]))
    if relu:
        layers.append(nn.ReLU())
    return layers


def _convolution(student: tuple[int, ...], teacher: tuple[int, ...], form: Form) -> nn.Module:
    (width, *size), (channels, *target) = student, teacher
    if form == "one_stage" and size == [2 * pixels for pixels in target]:
        return nn.Conv2d(width, channels, 3, stride=2, padding=1)
    if form == "one_stage" and target == [2 * pixels for pixels in size]:
        return nn.ConvTranspose2d(width, channels, 4, stride=2, padding=1)
    kernel = [max(mine - theirs, 0) + 1 for mine, theirs in zip(size, target, strict=True)]
    return nn.Conv2d(width, channels, (kernel[0], kernel[1]))
