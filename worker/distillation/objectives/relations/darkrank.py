"""DarkRank: match the teacher's ranking of the other samples."""

import itertools
import math
from dataclasses import dataclass
from functools import lru_cache
from typing import Annotated, Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from worker.distillation.errors import Problem, SpecError
from worker.distillation.introspection.tap_map import TapMap, Taps
from worker.distillation.losses.embeddings import EmbeddingObjective, distances
from worker.distillation.objective import ObjectiveNeeds
from worker.distillation.parameters import Range, TapPair
from worker.distillation.precision import fp32
from worker.distillation.step import Step
from worker.distillation.task import EVERY_TASK

EPSILON = 1e-12
"""Minimum distance; there is no gradient below it."""
LARGEST_SCORE = 1e30
"""Candidates that are further away than this score are as likely as one at it: the loss is finite at any distance."""
LONGEST_SOFT = 6
"""720 permutations for each query."""


class DarkRank(EmbeddingObjective):
    """Agreement with the teacher's ranking of each sample's nearest neighbours, under a Plackett-Luce model.

    Chen, Wang, Zhang, "DarkRank: accelerating deep metric learning via cross sample similarities transfer",
    arXiv:1707.01220. A candidate at distance d scores `-alpha d^beta`. The defaults are those of the authors' code
    (TuSimple/DarkRank): lists of 4, and squared distances squared between features of squared length 3.5, which is
    alpha 12.25 and beta 4 for unit length. That code uses a weight of 16 for the soft form, and its hard form ranks the
    whole batch. lenscloth/RKD has alpha 3 and beta 3. Every image is a query (in the authors' code, the first of each
    pair of one identity), and the gradient reaches queries and candidates (in the authors' code, candidates only). Ties
    keep the batch's order.
    """

    paper = "arXiv:1707.01220"
    needs = ObjectiveNeeds(batch_global=True, tasks=EVERY_TASK)
    least_samples = 3

    @dataclass(frozen=True)
    class Parameters:
        """The form, the lists and the scores."""

        form: Annotated[
            Literal["soft", "hard"],
            "Form: divergence from the teacher's probabilities of all permutations (`soft`), or likelihood of the"
            " teacher's own order (`hard`).",
        ] = "soft"
        length: Annotated[
            int | None,
            Range(ge=2),
            "Length of the ranked lists: the samples nearest to the query by the teacher. If null, or in a "
            "smaller batch: all others.",
        ] = 4
        alpha: Annotated[float, Range(gt=0), "Factor of the powers of distances in the scores."] = 12.25
        beta: Annotated[float, Range(gt=0, le=16), "Exponent of the distances in the scores."] = 4.0
        normalise: Annotated[bool, "Normalise embeddings to length 1 first."] = True
        tap: Annotated[
            TapPair | None, "The student's and the teacher's tap. If null: the inputs of the classifiers."
        ] = None

    def taps(self, student: TapMap, teacher: TapMap | None) -> Taps:
        p = self.settings
        if p.form == "soft" and (p.length is None or p.length > LONGEST_SOFT):
            words = f"must be at most {LONGEST_SOFT} for the soft form, which enumerates every order of a list"
            raise SpecError([Problem("/length", words)])
        return super().taps(student, teacher)

    def forward(self, step: Step) -> dict[str, Tensor]:
        p = self.settings
        with fp32(step.student.logits.device):
            pair = self.embeddings(step)
            student, teacher = (distances(F.normalize(x, dim=1) if p.normalise else x) for x in pair)
            teacher = teacher.detach()
            ranking = nearest(teacher, p.length)
            mine, theirs = (scores(d.gather(1, ranking), p.alpha, p.beta) for d in (student, teacher))
            return {p.form: soft_loss(mine, theirs) if p.form == "soft" else hard_loss(mine)}


def nearest(distances_BB: Tensor, length: int | None) -> Tensor:
    """Indices (B, L) of each sample's nearest neighbours, from near to far; all others if there are at most
    `length`."""
    others = distances_BB.clone().fill_diagonal_(math.inf)
    count = len(others) - 1
    return others.argsort(dim=1, stable=True)[:, : min(count, length or count)]


def scores(distances_BL: Tensor, alpha: float, beta: float) -> Tensor:
    """Plackett-Luce scores (B, L) of candidates at these distances."""
    furthest = min((LARGEST_SCORE / alpha) ** (1 / beta), LARGEST_SCORE)
    return -alpha * distances_BL.clamp(EPSILON, furthest) ** beta


def log_probability(scores_BL: Tensor) -> Tensor:
    """Log-probability (B, ...) of drawing the candidates in the order of the last dimension."""
    remaining = scores_BL.flip(-1).logcumsumexp(-1).flip(-1)
    return (scores_BL - remaining).sum(-1)


@lru_cache(maxsize=16)
def all_orders(length: int, device: torch.device) -> Tensor:
    """All permutations (L!, L) of `length` places; cached, because a copy to a GPU synchronises with it."""
    return torch.tensor(list(itertools.permutations(range(length))), device=device)


def soft_loss(student_BL: Tensor, teacher_BL: Tensor) -> Tensor:
    """Kullback-Leibler divergence of the student's distribution over all L! orders from the teacher's, mean over
    queries."""
    orders = all_orders(student_BL.shape[1], student_BL.device)
    student, teacher = (log_probability(side[:, orders]) for side in (student_BL, teacher_BL))
    return F.kl_div(student, teacher, reduction="batchmean", log_target=True)


def hard_loss(student_BL: Tensor) -> Tensor:
    """Negative log-likelihood of the candidates' given order, which is the teacher's; mean over queries."""
    return -log_probability(student_BL).mean()
