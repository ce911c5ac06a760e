"""How right a network is under several normalisations, on the same images; and when one is clearly better.

Shapes: N images, C channels, H height, W width, K classes.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from worker.distillation.contract_check.normalisations import Normalisation
from worker.distillation.process.heartbeat import pulse
from worker.distillation.process.stopwatch import Stopwatch

LEAST_GAIN = 0.05
"""A better normalisation has an accuracy, or another mean score, at least this much higher."""
LEAST_SIGMA = 3.0
EVEN_SIGMA, EVEN_GAIN = 1.0, 0.01
"""Two ways that differ by less count as even."""
EVEN_LOSS, LEAST_LOSS = 1.02, 1e-3
"""Losses in nats are even up to this factor and this much more."""
FEWEST_IMAGES = 64
SECONDS = 30.0
"""Usual time for one comparison, by a `Stopwatch`."""
MOST_CLASSES = 1024
"""With more classes no other order of them is looked for."""
Network = Callable[[Tensor], Tensor]
Judge = Callable[[Tensor, slice], Tensor]
"""Of the outputs (B, ...) for the images at these places, how right each is (B,): a bool, or a number from 0 to 1; NaN where nothing
is true of the image."""


@dataclass(frozen=True)
class Judgement:
    """When outputs for certain images are right.

    `guessed(n)` is the mean score, on the first n of the images, of the best answer that is the same for all. `words` say of a network
    how right it is, with the places `{score}` and `{count}`; `again` says another score after that.
    """

    judge: Judge
    guessed: Callable[[int], float]
    words: str
    again: str = "on {score}"
    name: str = "accuracy"
    """What the mean score is called in findings and reports."""
    fewest: int = FEWEST_IMAGES
    """Images that are measured however long it takes."""

    def said(self, score: float, count: int) -> str:
        return self.words.format(score=f"{score:.1%}", count=count)


@dataclass(frozen=True)
class Measured:
    """One way of reading the images: `right` (N,) says of each image whether the network is right, or how much so from 0 to 1."""

    name: str
    right: Tensor
    normalisation: Normalisation | None = None
    """None for another order of classes."""

    @property
    def accuracy(self) -> float:
        """The mean over the images of which something is true."""
        return float(self.right.double().nanmean())

    def row(self, called: str = "accuracy") -> dict[str, object]:
        """As plain values, for findings and reports."""
        used = self.normalisation
        row: dict[str, object] = {"name": self.name, called: round(self.accuracy, 4), "images": len(self.right)}
        return row | ({"mean": list(used.mean), "std": list(used.std)} if used is not None and used.is_plain else {})


def names_class(outputs_NK: Tensor, label_N: Tensor) -> Tensor:
    """Whether the largest logit is that of the class."""
    return outputs_NK.argmax(1) == label_N


def names_label(outputs_NK: Tensor, label_NK: Tensor) -> Tensor:
    """Whether the image has the label with the largest logit; `label` is 0 or 1."""
    return label_NK.gather(1, outputs_NK.argmax(1, keepdim=True))[:, 0] > 0


def beats_mean(outputs_ND: Tensor, target_ND: Tensor, all_MD: Tensor) -> Tensor:
    """Whether outputs are nearer to the targets than the mean of all targets is, in units of each target's deviation."""
    mean, deviation = all_MD.mean(0), all_MD.std(0, correction=0).clamp(min=1e-12)
    error, guessed = ((each - target_ND) / deviation for each in (outputs_ND, mean))
    return error.square().sum(1) < guessed.square().sum(1)


def guessed_share(truth: Tensor) -> float:
    """How often the best answer that is always the same is right: labels (N,) or (N, K) of 0 and 1, or targets (N, D)."""
    if truth.is_floating_point():
        return 0.0
    return float(truth.bincount().max()) / len(truth) if truth.ndim == 1 else float(truth.double().mean(0).max())


def by_truth(right: Callable[[Tensor, Tensor], Tensor], truth: Tensor, words: str) -> Judgement:
    """The judgement by a function of outputs and truth, the labels or targets of the images."""
    return Judgement(lambda given, part: right(given, truth[part]), lambda count: guessed_share(truth[:count]), words)


@torch.no_grad()
def outputs(network: Network, image_NCHW: Tensor, way: Normalisation, batch_size: int = 128) -> Tensor:
    """The network's outputs (N, K) for uint8 images."""
    found = []
    for part in image_NCHW.split(batch_size):
        pulse()
        found.append(network(way.apply(part)))
    return torch.cat(found)


@torch.no_grad()
def measured(network: Network, image_NCHW: Tensor, judge: Judge, way: Normalisation, batch_size: int = 128) -> Measured:
    """The network measured under one normalisation, batch by batch, since outputs may be large."""
    found = []
    for start in range(0, len(image_NCHW), batch_size):
        pulse()
        part = slice(start, min(start + batch_size, len(image_NCHW)))
        found.append(judge(network(way.apply(image_NCHW[part])), part))
    return Measured(way.name, torch.cat(found), way)


def compare(
    network: Network,
    image_NCHW: Tensor,
    judgement: Judgement,
    first: Normalisation,
    others: Sequence[Normalisation],
    seconds: float = SECONDS,
    batch_size: int = 128,
    stopwatch: Callable[[], Stopwatch] = Stopwatch,
) -> list[Measured]:
    """The network measured under `first`, then under the others; on the first of the images only where all take longer than
    `seconds`.

    The images have to be in an order in which the first few are like the rest.
    """
    few = image_NCHW[: judgement.fewest]
    taken = stopwatch()
    measured(network, few, judgement.judge, first, batch_size)
    each = taken.seconds / len(few)
    allowed = int(seconds / max(each * (1 + len(others)), 1e-9))
    image = image_NCHW[: max(judgement.fewest, allowed)]
    return [measured(network, image, judgement.judge, way, batch_size) for way in (first, *others)]


def in_another_order(chosen_N: Tensor, label_N: Tensor) -> Tensor:
    """Whether each answer (N,) is right if classes may be numbered in another order, which the other half of the images tells.

    Of each label the network's commonest answer is taken for its number in the network.
    """
    right = torch.zeros_like(label_N, dtype=torch.bool)
    size = int(torch.maximum(chosen_N.max(), label_N.max())) + 1
    if size > MOST_CLASSES:
        return right
    half = torch.arange(len(label_N), device=label_N.device) % 2 == 0
    for told, asked in ((half, ~half), (~half, half)):
        counts = torch.zeros(size, size, device=label_N.device)
        counts.index_put_((label_N[told], chosen_N[told]), torch.ones(1, device=label_N.device), accumulate=True)
        number = counts.argmax(1)
        seen = label_N[told].unique()
        if len(number[seen].unique()) < len(seen):  # two labels with one answer: no order
            return torch.zeros_like(right)
        right[asked] = (number[label_N[asked]] == chosen_N[asked]) & torch.isin(label_N[asked], seen)
    return right


def sigma(one_N: Tensor, other_N: Tensor) -> float:
    """By how many standard deviations `other` is right more often than `one`, or has a higher score, on the same images.

    McNemar's test (Psychometrika 12, 1947), which is the sign test: of the images on which the two differ, half are expected to
    favour each.
    """
    count = min(len(one_N), len(other_N))
    one_N, other_N = one_N[:count], other_N[:count]
    gained, lost = int((other_N > one_N).sum()), int((one_N > other_N).sum())
    return (gained - lost) / max(gained + lost, 1) ** 0.5


def even(one_N: Tensor, other_N: Tensor, least_sigma: float = EVEN_SIGMA) -> bool:
    """Whether `other` is right more often than `one` by so little that the plainer of both is taken, on the images that both were
    measured on."""
    count = min(len(one_N), len(other_N))
    gain = float(other_N[:count].double().mean() - one_N[:count].double().mean())
    return gain <= EVEN_GAIN or sigma(one_N, other_N) < least_sigma


def about_lowest(losses: Sequence[float]) -> int:
    """The first of the losses in nats that are about as low as the lowest."""
    most = EVEN_LOSS * min(losses) + LEAST_LOSS
    return next(number for number, loss in enumerate(losses) if loss <= most)


def clearly_better(one: Measured, other: Measured, judgement: Judgement) -> bool:
    """Whether `other` is right more often by at least 5 points and 3 standard deviations, and above what one answer for all
    images would give."""
    count = len(other.right)
    commonest = judgement.guessed(count)
    guessed = commonest + LEAST_SIGMA * (commonest * (1 - commonest) / count) ** 0.5
    gain = other.accuracy - one.accuracy
    return gain >= LEAST_GAIN and sigma(one.right, other.right) >= LEAST_SIGMA and other.accuracy > guessed


def table(rows: Sequence[Measured]) -> str:
    """The rows in words, the best first."""
    ordered = sorted(rows, key=lambda row: -row.accuracy)
    return "; ".join(f"{row.name}: {row.accuracy:.1%}" for row in ordered)
