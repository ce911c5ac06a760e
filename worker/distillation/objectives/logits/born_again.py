"""Born-again networks: each generation learns from the one before."""

from dataclasses import dataclass
from typing import Annotated, Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from worker.distillation.errors import Problem, SpecError
from worker.distillation.losses.logits import standardise
from worker.distillation.objective import BuildContext, Objective, ObjectiveNeeds
from worker.distillation.precision import fp32, single
from worker.distillation.step import Step

MIXERS = ((30, 0xBF58476D1CE4E5B9 - 2**64), (27, 0x94D049BB133111EB - 2**64))
"""Shifts and factors of SplitMix64's finaliser, as signed integers."""


class BornAgain(Objective):
    """Cross-entropy with the teacher's predictions, or with one of two control variants of them.

    Furlanello et al., "Born-again neural networks", arXiv:1805.04770: no temperature; the teacher is the previous
    generation. `cwtm` (confidence-weighted by teacher max) trains on the labels and weights each sample by the
    teacher's largest probability, relative to the batch's sum. `dkpp` (dark knowledge with permuted predictions) keeps
    the largest probability and shuffles all others, anew at each step. The permutation depends on the sample's index,
    the step and a seed alone, so that a resumed run repeats it. Standardised logits (arXiv:2403.01427) are our
    addition.
    """

    paper = "arXiv:1805.04770"
    needs = ObjectiveNeeds(logits=True)
    when = {
        ("form", "cwtm"): {"needs": ObjectiveNeeds(fields=("label",), batch_global=True)},
        ("form", "dkpp"): {"needs": ObjectiveNeeds(fields=("index",), logits=True, minimum_classes=3)},
        ("standardise", True): {"needs": ObjectiveNeeds(logits=True, minimum_classes=3)},
    }

    seed: Tensor

    @dataclass(frozen=True)
    class Parameters:
        """The part of the teacher's predictions that is used."""

        form: Annotated[
            Literal["soft", "cwtm", "dkpp"],
            "Use of the teacher's predictions: as they are (`soft`), only their confidence as each sample's "
            "weight (`cwtm`), or with all but the largest shuffled (`dkpp`).",
        ] = "soft"
        standardise: Annotated[
            bool,
            "Standardise each row of logits to mean 0 and deviation 1 first (arXiv:2403.01427). Not with `cwtm`.",
        ] = False

    def build(self, context: BuildContext) -> None:
        super().build(context)
        p = self.settings
        if p.form == "cwtm" and p.standardise:
            raise SpecError([Problem("/standardise", "cannot be combined with form `cwtm`, which compares no logits")])
        if p.form == "dkpp":
            self.register_buffer("seed", torch.randint(2**31, ()))

    def forward(self, step: Step) -> dict[str, Tensor]:
        with fp32(step.student.logits.device):
            student, teacher = single(step.student.logits), single(step.need_teacher().logits)
            if self.settings.form == "cwtm":
                return {"cwtm": (confidence_weights(teacher) * _cross_entropies(student, step.label)).sum()}
            if self.settings.standardise:
                student, teacher = standardise(student), standardise(teacher)
            target = F.softmax(teacher, dim=1)
            if self.settings.form == "dkpp":
                target = permuted(target, keys(self.seed + step.number, step.batch.fields["index"], target.shape[1]))
            return {self.settings.form: _cross_entropies(student, target).mean()}


def _cross_entropies(student_BK: Tensor, target: Tensor) -> Tensor:
    return F.cross_entropy(student_BK, target, reduction="none")


def confidence_weights(teacher_BK: Tensor) -> Tensor:
    """The teacher's largest probability of each sample, divided by the sum of these over the batch, (B,)."""
    confidence = F.softmax(teacher_BK, dim=1).amax(1)
    return confidence / confidence.sum()


def permuted(p_BK: Tensor, keys_BK: Tensor) -> Tensor:
    """Rows whose largest value keeps its place; the others are ordered by `keys_BK`."""
    classes = torch.arange(p_BK.shape[1], device=p_BK.device).expand_as(p_BK)
    is_largest = classes == p_BK.argmax(1, keepdim=True)
    first = torch.iinfo(torch.int64).min
    origin, place = (order.masked_fill(is_largest, first).argsort(1) for order in (keys_BK, classes))
    return torch.empty_like(p_BK).scatter(1, place, p_BK.gather(1, origin))


def keys(seed: Tensor, index_B: Tensor, classes: int) -> Tensor:
    """Pseudo-random int64 (B, classes); each row depends on `seed` (a scalar) and the sample's index alone."""
    row_B = _mixed(_mixed(seed) + index_B)
    return _mixed(row_B[:, None] + torch.arange(classes, device=index_B.device))


def _mixed(x: Tensor) -> Tensor:
    for shift, factor in MIXERS:
        x = (x ^ (x >> shift)) * factor
    return x ^ (x >> 31)
