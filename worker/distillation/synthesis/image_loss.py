"""The loss of synthetic images: what a frozen teacher, and live students, make of them.

Shapes: B batch, C channels, H height, W width, K classes.
"""

from collections.abc import Mapping
from contextlib import nullcontext
from dataclasses import dataclass, fields
from typing import Any

import torch
from torch import Tensor, nn

from worker.distillation.introspection.taps import Tapped, penultimate
from worker.distillation.step import Outputs
from worker.distillation.synthesis import generator_losses
from worker.distillation.synthesis.batch_norm_statistics import BatchStatistics
from worker.distillation.synthesis.live import evaluating


@dataclass(frozen=True)
class Weights:
    """What the terms of a synthesiser's loss are multiplied by; a term of weight 0 is not computed.

    Each is a method of `Seen` by the same name.
    """

    one_hot: float = 0.0
    information_entropy: float = 0.0
    activation: float = 0.0
    adversarial: float = 0.0
    disagreement: float = 0.0
    divergence: float = 0.0
    boundary: float = 0.0
    competition: float = 0.0
    batch_statistics: float = 0.0
    total_variation: float = 0.0
    energy: float = 0.0

    def any(self, *names: str) -> bool:
        """Whether one of these terms counts."""
        return any(getattr(self, name) for name in names)


AGAINST_STUDENTS = ("adversarial", "disagreement", "divergence", "boundary", "competition")


@dataclass
class Seen:
    """One batch of images (B, C, H, W), and what was made of it, in single precision.

    `logits` (B, K) are the teacher's, `answers` those of the students; `feature`: what the teacher's classifier reads;
    `target` (B,) int64: the classes that the images are meant to show, the teacher's own choice where that is None.
    """

    image: Tensor
    outputs: Outputs
    logits: Tensor
    answers: list[Tensor]
    feature: Tensor | None = None
    statistics: BatchStatistics | None = None
    target: Tensor | None = None
    independent: bool = False
    """The outputs are not classes of which an image shows one, but labels each of which it may have."""

    def one_hot(self) -> Tensor:
        return generator_losses.one_hot(self.rows(self.logits), self.target)

    def information_entropy(self) -> Tensor:
        entropy = (
            generator_losses.information_entropy_of_each if self.independent else generator_losses.information_entropy
        )
        return entropy(self.logits)

    def rows(self, logits: Tensor) -> Tensor:
        """Logits of which each row is one choice among classes."""
        return generator_losses.decisions(logits) if self.independent else logits

    def activation(self) -> Tensor:
        assert self.feature is not None
        return generator_losses.activation(self.feature)

    def adversarial(self) -> Tensor:
        return self._mean(generator_losses.adversarial)

    def disagreement(self) -> Tensor:
        return self._mean(generator_losses.disagreement)

    def divergence(self) -> Tensor:
        return self._mean(generator_losses.divergence)

    def boundary(self) -> Tensor:
        return self._mean(generator_losses.boundary)

    def competition(self) -> Tensor:
        return self._mean(generator_losses.competition)

    def batch_statistics(self) -> Tensor:
        assert self.statistics is not None
        return self.statistics.distance()

    def total_variation(self) -> Tensor:
        return generator_losses.total_variation(self.image)

    def energy(self) -> Tensor:
        return generator_losses.energy(self.image)

    def _mean(self, loss: Any) -> Tensor:
        """Of a loss (answer, teacher's logits) over the students."""
        teacher = self.rows(self.logits)
        return torch.stack([loss(self.rows(answer), teacher) for answer in self.answers]).mean()


class ImageLoss:
    """The weighted terms of a synthesiser's loss, from what the teacher and the students answer.

    Gradients flow to the images only: none is left in the networks, and students' modes and statistics stay as they were.
    """

    def __init__(
        self,
        teacher: Tapped,
        weights: Weights,
        precision: torch.dtype,
        device: torch.device,
        statistics: BatchStatistics | None = None,
        independent: bool = False,
    ):
        self.teacher, self.weights, self.precision, self.device = teacher, weights, precision, device
        self.independent = independent
        self.statistics = statistics or (BatchStatistics() if weights.batch_statistics else None)
        self.feature_tap = penultimate(teacher) if weights.activation else None
        if self.feature_tap:
            teacher.request([self.feature_tap])

    def autocast(self) -> torch.autocast:
        """The precision of a synthesiser's forward passes."""
        return torch.autocast(self.device.type, torch.bfloat16, enabled=self.precision == torch.bfloat16)

    def see(
        self,
        image_BCHW: Tensor,
        students: Mapping[str, nn.Module],
        target_B: Tensor | None = None,
        weights: Weights | None = None,
    ) -> tuple[Seen, dict[str, Tensor]]:
        """What the networks make of the images, and the unweighted terms that count; `weights` may replace those of the loss."""
        weights = weights or self.weights
        adversaries = list(students.values()) if weights.any(*AGAINST_STUDENTS) else []
        reading = self.statistics.reading() if self.statistics and weights.batch_statistics else nullcontext()
        with self.autocast(), evaluating(adversaries):
            with reading:
                outputs = self.teacher(image_BCHW)
            answers = [logits_of(student(image_BCHW)).float() for student in adversaries]
        feature = outputs.taps[self.feature_tap].float() if self.feature_tap else None
        made_of = image_BCHW, outputs, outputs.logits.float(), answers, feature, self.statistics, target_B
        seen = Seen(*made_of, independent=self.independent)
        counted = [each.name for each in fields(weights) if getattr(weights, each.name)]
        return seen, {name: getattr(seen, name)() for name in counted if answers or name not in AGAINST_STUDENTS}

    def total(self, terms: Mapping[str, Tensor], weights: Weights | None = None) -> Tensor:
        """The weighted sum of at least one term."""
        weights = weights or self.weights
        return torch.stack([getattr(weights, name) * term for name, term in terms.items()]).sum()

    @torch.no_grad()
    def label(self, image_BCHW: Tensor) -> Tensor:
        """The teacher's logits (B, K), in full precision."""
        with torch.autocast(self.device.type, enabled=False):
            return self.teacher(image_BCHW).logits


def logits_of(output: Outputs | Tensor) -> Tensor:
    """The logits of a network's answer, tapped or bare."""
    return output.logits if isinstance(output, Outputs) else output
