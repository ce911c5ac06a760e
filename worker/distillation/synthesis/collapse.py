"""Detection of a generator's collapse, and the loss weights of a restart.

The metrics need no real image: the entropy of the teacher's mean prediction, the difference between the images of a
batch, the teacher's confidence, the students' agreement with it, and whether their disagreement rises while the entropy
falls. The bounds are ours. Shapes: B batch, C channels, H height, W width, K classes.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from itertools import pairwise
from typing import Any, Literal

import torch
from torch import Tensor

from worker.distillation.errors import Collapsed, Diverged
from worker.distillation.synthesis.generator_losses import adversarial, balance
from worker.distillation.synthesis.image_loss import AGAINST_STUDENTS, Seen, Weights

LEAST_BALANCE = 0.5
"""Below this entropy of the mean prediction, a batch shows too few classes. Unit: log K, or log B if B is smaller
than K."""
LEAST_DIVERSITY = 0.1
"""Below this mean distance between images, they are nearly identical. Unit: the mean distance in the first batches."""
LEAST_SPREAD = 1e-5
"""Below this mean distance between the teacher's logits, relative to their size, its outputs are the same for all
images."""
PATIENCE = 50
"""Number of such batches in a row that count as a collapse."""
LOOK_EVERY = 10
"""Number of batches between two checks; a check synchronises with the device."""
WINDOW, WINDOWS = 25, 5
"""Number of batches over which disagreement and balance are averaged, and number of means in a row that must rise
and fall for a collapse."""
RISE, BALANCED = 1.5, 0.95
"""Factor by which the disagreement must have grown, and the balance above which there is no collapse."""
RUNAWAY, GROWN = 1.0, 2.0
"""Disagreement, and multiple of its lowest mean so far, from which on a warning is given even if the classes are
balanced. Students whose outputs are all zero have a disagreement of 1."""
LEAST_WEIGHT = 1.0
"""Minimum weight of the term for balanced classes, before a restart doubles it."""

NAMES = ("balance", "confidence", "diversity", "spread", "agreement", "disagreement")
ALIKE, FEW_CLASSES, ONE_IMAGE = range(3)


class CollapseWatch:
    """Computes six metrics of a generator's batches on the device, and checks them at intervals.

    `balance`: entropy of the mean prediction over the largest possible; `confidence`: mean probability of the predicted
    class; `diversity`: root mean square distance between pixels of two images; `spread`: the same of the teacher's
    logits, relative to their size; `agreement`: share of images on which students and teacher predict the same class;
    `disagreement`: mean difference of centred logits relative to the teacher's. The last two are NaN if there are no
    students.
    """

    def __init__(self, device: torch.device):
        self.now = torch.full((len(NAMES),), math.nan, device=device)
        self.first_diversity = torch.zeros((), device=device)
        self.low = torch.zeros(3, dtype=torch.int64, device=device)
        self.sums = torch.zeros(2, device=device)
        self.means: list[Tensor] = []
        self.lowest = torch.full((), torch.inf, device=device)
        self.warning = ""
        """A warning for the job's user that has no other consequence."""
        self.seen = self.summed = 0

    @property
    def balance(self) -> Tensor:
        return self.now[0]

    @torch.no_grad()
    def see(self, seen: Seen) -> None:
        """Add one batch; does not synchronise with the device."""
        self.now = measure(seen)
        balance_, _, diversity_, spread_, _, disagreement = self.now
        if self.seen < LOOK_EVERY:
            self.first_diversity = self.first_diversity + diversity_ / LOOK_EVERY
        self.seen += 1
        one_image = diversity_ <= LEAST_DIVERSITY * self.first_diversity
        is_low = torch.stack([spread_ < LEAST_SPREAD, balance_ < LEAST_BALANCE, one_image])
        self.low = torch.where(is_low, self.low + 1, 0)
        if seen.student_logits:
            self.sums = self.sums + torch.stack([disagreement, balance_]) / WINDOW
            self.summed += 1
            if self.summed % WINDOW == 0:
                self.means = [*self.means[1 - WINDOWS :], self.sums]
                self.lowest = torch.minimum(self.lowest, self.sums[0])
                self.sums = torch.zeros_like(self.sums)

    def check(self, number: int) -> None:
        """Check the metrics if the batch's `number` is due; may set `warning`.

        Raises:
            Collapsed: for 50 batches in a row, there were too few classes, or images were nearly identical, or the teacher's
                outputs were the same for all images; or the disagreement has risen and the balance fallen for 125 batches.
            Diverged: the balance is not finite.
        """
        if number % LOOK_EVERY:
            return
        if not math.isfinite(self.balance.item()):
            raise Diverged(
                f"the generator's images became NaN or infinite by its step {number}",
                hint="lower the source's generator_learning_rate",
            )
        low = self.low.tolist()
        if low[ALIKE] >= PATIENCE and low[ONE_IMAGE] < PATIENCE:
            why = (
                f"for {low[ALIKE]} steps the teacher's outputs were the same for all images, although the images differ"
            )
            raise same_outputs(self._sentence(number, why))
        if low[ONE_IMAGE] >= PATIENCE:
            raise self._collapsed(number, f"for {low[ONE_IMAGE]} steps all images of a batch were nearly identical")
        if low[FEW_CLASSES] >= PATIENCE:
            why = f"for {low[FEW_CLASSES]} steps the teacher predicted few of the classes, or only one, for the images"
            raise self._collapsed(number, why)
        if self.means and self.summed % WINDOW < LOOK_EVERY:
            means = [mean.tolist() for mean in self.means]
            if runs_away(means):
                why = f"for {WINDOW * WINDOWS} steps the students' disagreement rose while the balance of classes fell"
                raise self._collapsed(number, why)
            self.warning = self.warning or self._warn(number, *means[-1])

    def metrics(self) -> dict[str, Tensor]:
        """The last batch's metrics by name; the balance is called `class_balance`."""
        named = dict(zip(("class_balance", *NAMES[1:]), self.now, strict=True))
        return named if self.summed else {name: named[name] for name in list(named)[:4]}

    def state_dict(self) -> dict[str, Any]:
        return dict(vars(self))

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        device = self.now.device
        for name, value in state.items():
            placed = value.clone().to(device) if isinstance(value, Tensor) else value
            setattr(self, name, [mean.to(device) for mean in value] if name == "means" else placed)

    def _warn(self, number: int, disagreement: float, balance_: float) -> str:
        """A warning if the disagreement, as a mean over the last batches, has grown large; else an empty string."""
        lowest = self.lowest.item()
        if disagreement < max(RUNAWAY, GROWN * lowest):
            return ""
        return (
            f"the students' disagreement with the teacher on new images rose from {lowest:.2f} to "
            f"{disagreement:.2f} of the "
            f"size of its logits by generator step {number}, while the balance of classes was {balance_:.0%}: the "
            "students may not "
            "keep up with the generator; if their final accuracy is low, reduce the source's weights of terms "
            "against the students"
        )

    def _collapsed(self, number: int, why: str) -> Collapsed:
        hint = (
            "raise the source's entropy_weight or generator_batch, or reduce its weights of terms against the students"
        )
        return Collapsed(self._sentence(number, why), hint)

    def _sentence(self, number: int, why: str) -> str:
        balance_, confidence, diversity_, _, agreement, _ = self.now.tolist()
        first = self.first_diversity.item()
        parts = [
            f"entropy of the mean prediction {balance_:.0%} of the maximum",
            f"distance between images {diversity_ / first if first else 0.0:.0%} of that of the first images",
            f"the teacher's confidence {confidence:.0%}",
        ]
        parts += [f"students agree with it on {agreement:.0%}"] if math.isfinite(agreement) else []
        return f"the synthetic images had collapsed by generator step {number}: {why} ({', '.join(parts)})"


def measure(seen: Seen) -> Tensor:
    """The metrics (6,) of one batch, in the order of `NAMES`; of independent outputs, those of each binary decision."""
    logits, students = seen.logits, [seen.rows(student) for student in seen.student_logits]
    rows = seen.rows(logits)
    chosen = rows.argmax(dim=1)
    unknown = logits.new_full((), math.nan)
    agreement = [(student.argmax(dim=1) == chosen).float().mean() for student in students]
    disagreement = [-adversarial(student, rows) for student in students]
    return torch.stack(
        [
            -seen.information_entropy() / math.log10(2) if seen.independent else balance(logits),
            rows.softmax(dim=1).amax(dim=1).mean(),
            distance(seen.image.float()),
            spread(logits),
            torch.stack(agreement).mean() if agreement else unknown,
            torch.stack(disagreement).mean() if disagreement else unknown,
        ]
    )


def distance(x: Tensor) -> Tensor:
    """Root mean square difference between an element of one sample (B, ...) and the same element of another.

    Over all pairs of different samples, that is the square root of twice the variance.
    """
    return (2 * x.flatten(1).var(dim=0).mean()).sqrt()


def spread(logits_BK: Tensor) -> Tensor:
    """The distance between the logits of two images, relative to their size."""
    return distance(logits_BK) / logits_BK.square().mean().sqrt().clamp_min(torch.finfo(torch.float32).tiny)


def same_outputs(words: str) -> Collapsed:
    """The error for a teacher whose outputs do not depend on the image."""
    hint = "check the teacher's weights: nothing can be learnt from outputs that do not depend on the image"
    return Collapsed(words, hint, restart_may_help=False)


def runs_away(means: Sequence[Sequence[float]]) -> bool:
    """Whether, in `WINDOWS` pairs of means of disagreement and balance, the first always rises and the second always
    falls, both by enough to matter."""
    steps = list(pairwise(means))
    steady = all(later[0] > earlier[0] and later[1] < earlier[1] for earlier, later in steps)
    return len(means) == WINDOWS and steady and means[-1][0] > RISE * means[0][0] and means[-1][1] < BALANCED


def corrected(
    weights: Weights, restarts: int, balancing: Literal["information_entropy", "one_hot"] = "information_entropy"
) -> Weights:
    """The loss weights after `restarts` restarts. Each restart doubles that of `balancing`, the term for balanced
    classes, and halves those of the terms against the students."""
    if not restarts:
        return weights
    changed = {name: getattr(weights, name) * 0.5**restarts for name in AGAINST_STUDENTS}
    changed[balancing] = max(getattr(weights, balancing), LEAST_WEIGHT) * 2.0**restarts
    return replace(weights, **changed)
