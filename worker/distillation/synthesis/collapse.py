"""Noticing that a generator collapses, and with which weights it is begun again.

What is watched needs no real image: the entropy of the teacher's mean prediction, how different the images of a batch are,
how sure the teacher is, whether the students agree with it, and whether their disagreement rises while the entropy falls.
Bounds are ours. Shapes: B batch, C channels, H height, W width, K classes.
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
"""Of log K, or log B where a batch is smaller: the entropy of the mean prediction under which a batch shows too few classes."""
LEAST_DIVERSITY = 0.1
"""Of the first batches' mean distance between images, under which they are nearly one image."""
LEAST_SPREAD = 1e-5
"""Mean distance between the teacher's logits, relative to their size, under which it answers all images alike."""
PATIENCE = 50
"""Batches in a row that are so."""
LOOK_EVERY = 10
"""Batches between two looks; a look waits for the device."""
WINDOW, WINDOWS = 25, 5
"""Batches over which disagreement and balance are averaged, and means in a row that must rise and fall for an alarm."""
RISE, BALANCED = 1.5, 0.95
"""How much the disagreement must have grown, and the balance that an alarm leaves alone."""
RUNAWAY, GROWN = 1.0, 2.0
"""The disagreement, and its multiple of the least mean so far, from which on it is worth a warning though classes stay in
balance; students that answer nothing but zeros have 1."""
LEAST_WEIGHT = 1.0
"""What the term that asks for all classes is taken to count at least, before a restart doubles it."""

NAMES = ("balance", "confidence", "diversity", "spread", "agreement", "disagreement")
ALIKE, FEW_CLASSES, ONE_IMAGE = range(3)


class CollapseWatch:
    """Follows six figures of a generator's batches on the device, and looks at them now and then.

    `balance`: entropy of the mean prediction over the largest possible; `confidence`: mean of the likeliest class's probability;
    `diversity`: root mean square distance between pixels of two images; `spread`: the same of the teacher's logits, relative
    to their size; `agreement`: share of images on which students and teacher choose the same class; `disagreement`: mean
    difference of centred logits relative to the teacher's. The last two are not a number while there are no students.
    """

    def __init__(self, device: torch.device):
        self.now = torch.full((len(NAMES),), math.nan, device=device)
        self.first_diversity = torch.zeros((), device=device)
        self.low = torch.zeros(3, dtype=torch.int64, device=device)
        self.sums = torch.zeros(2, device=device)
        self.means: list[Tensor] = []
        self.lowest = torch.full((), torch.inf, device=device)
        self.warning = ""
        """What is to be heard of, though nothing is done about it."""
        self.seen = self.summed = 0

    @property
    def balance(self) -> Tensor:
        return self.now[0]

    @torch.no_grad()
    def see(self, seen: Seen) -> None:
        """Take note of one batch; nothing waits for the device."""
        self.now = figures(seen)
        balance_, _, diversity_, spread_, _, disagreement = self.now
        if self.seen < LOOK_EVERY:
            self.first_diversity = self.first_diversity + diversity_ / LOOK_EVERY
        self.seen += 1
        one_image = diversity_ <= LEAST_DIVERSITY * self.first_diversity
        is_low = torch.stack([spread_ < LEAST_SPREAD, balance_ < LEAST_BALANCE, one_image])
        self.low = torch.where(is_low, self.low + 1, 0)
        if seen.answers:
            self.sums = self.sums + torch.stack([disagreement, balance_]) / WINDOW
            self.summed += 1
            if self.summed % WINDOW == 0:
                self.means = [*self.means[1 - WINDOWS :], self.sums]
                self.lowest = torch.minimum(self.lowest, self.sums[0])
                self.sums = torch.zeros_like(self.sums)

    def check(self, number: int) -> None:
        """Look, if the batch's `number` says that it is time; may leave a `warning`.

        Raises:
            Collapsed: 50 batches in a row have shown too few classes, or nearly one image, or the teacher answered them all
                alike; or disagreement has risen and balance fallen for 125 batches.
            Diverged: the balance is not a number.
        """
        if number % LOOK_EVERY:
            return
        if not math.isfinite(self.balance.item()):
            raise Diverged(
                f"the generator's images became not-a-number by its step {number}",
                hint="lower the source's generator_learning_rate",
            )
        low = self.low.tolist()
        if low[ALIKE] >= PATIENCE and low[ONE_IMAGE] < PATIENCE:
            why = f"for {low[ALIKE]} steps the teacher has answered all images alike, different as they are"
            raise answered_alike(self._sentence(number, why))
        if low[ONE_IMAGE] >= PATIENCE:
            raise self._collapsed(
                number, f"for {low[ONE_IMAGE]} steps all images of a batch have been nearly one image"
            )
        if low[FEW_CLASSES] >= PATIENCE:
            why = f"for {low[FEW_CLASSES]} steps the teacher has seen few of the classes, or one class only, in the images"
            raise self._collapsed(number, why)
        if self.means and self.summed % WINDOW < LOOK_EVERY:
            means = [mean.tolist() for mean in self.means]
            if runs_away(means):
                why = f"for {WINDOW * WINDOWS} steps the students' disagreement has risen while the balance of classes fell"
                raise self._collapsed(number, why)
            self.warning = self.warning or self._warn(number, *means[-1])

    def metrics(self) -> dict[str, Tensor]:
        """The last batch's figures by name; the balance is called `class_balance`."""
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
        """A sentence if the disagreement has grown large, of the means of the last batches."""
        lowest = self.lowest.item()
        if disagreement < max(RUNAWAY, GROWN * lowest):
            return ""
        return (
            f"the students' disagreement with the teacher on new images rose from {lowest:.2f} to {disagreement:.2f} of its "
            f"logits' size by generator step {number}, while the balance of classes was {balance_:.0%}: the generator may run "
            "away from the students; if they end up worse than they should, lower what the source weighs their errors with"
        )

    def _collapsed(self, number: int, why: str) -> Collapsed:
        hint = "raise the source's entropy_weight or generator_batch, or lower what it weighs the students' errors with"
        return Collapsed(self._sentence(number, why), hint)

    def _sentence(self, number: int, why: str) -> str:
        balance_, confidence, diversity_, _, agreement, _ = self.now.tolist()
        first = self.first_diversity.item()
        parts = [
            f"entropy of the mean prediction {balance_:.0%} of the maximum",
            f"distance between images {diversity_ / first if first else 0.0:.0%} of the first ones'",
            f"the teacher's confidence {confidence:.0%}",
        ]
        parts += [f"students agree with it on {agreement:.0%}"] if math.isfinite(agreement) else []
        return f"the synthetic images had collapsed by generator step {number}: {why} ({', '.join(parts)})"


def figures(seen: Seen) -> Tensor:
    """The figures (6,) of one batch, in the order of `NAMES`; of independent outputs those of each, for or against."""
    logits, answers = seen.logits, [seen.rows(answer) for answer in seen.answers]
    rows = seen.rows(logits)
    chosen = rows.argmax(dim=1)
    unknown = logits.new_full((), math.nan)
    agreement = [(answer.argmax(dim=1) == chosen).float().mean() for answer in answers]
    disagreement = [-adversarial(answer, rows) for answer in answers]
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
    """Root mean square of the difference between a number of one sample (B, ...) and the same of another.

    Over all pairs of different samples that is the square root of twice the variance.
    """
    return (2 * x.flatten(1).var(dim=0).mean()).sqrt()


def spread(logits_BK: Tensor) -> Tensor:
    """The distance between the logits of two images, relative to their size."""
    return distance(logits_BK) / logits_BK.square().mean().sqrt().clamp_min(torch.finfo(torch.float32).tiny)


def answered_alike(words: str) -> Collapsed:
    """What ends a run whose teacher's answers do not depend on the image."""
    hint = "check the teacher's weights: nothing can be learnt from answers that do not depend on the image"
    return Collapsed(words, hint, mendable=False)


def runs_away(means: Sequence[Sequence[float]]) -> bool:
    """Whether in `WINDOWS` pairs of means, disagreement and balance, the first always rises and the second always falls, both by
    enough to matter."""
    steps = list(pairwise(means))
    steady = all(later[0] > earlier[0] and later[1] < earlier[1] for earlier, later in steps)
    return len(means) == WINDOWS and steady and means[-1][0] > RISE * means[0][0] and means[-1][1] < BALANCED


def corrected(
    weights: Weights, restarts: int, balancing: Literal["information_entropy", "one_hot"] = "information_entropy"
) -> Weights:
    """The weights with which images are begun again: for every restart `balancing`, the term that asks for all classes, counts
    twice as much, and what is gained from the students' errors half as much."""
    if not restarts:
        return weights
    changed = {name: getattr(weights, name) * 0.5**restarts for name in AGAINST_STUDENTS}
    changed[balancing] = max(getattr(weights, balancing), LEAST_WEIGHT) * 2.0**restarts
    return replace(weights, **changed)
