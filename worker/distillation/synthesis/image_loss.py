"""The loss of synthetic images, from the outputs of a frozen teacher and of live students.

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
    """Weights of the terms of a synthesiser's loss; a term of weight 0 is not computed.

    Each term is the method of `Seen` of the same name.
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
        """Whether one of these terms has a weight other than 0."""
        return any(getattr(self, name) for name in names)


AGAINST_STUDENTS = ("adversarial", "disagreement", "divergence", "boundary", "competition")


@dataclass
class Seen:
    """One batch of images (B, C, H, W), and the networks' outputs for it, in single precision.

    `logits` (B, K) are the teacher's, `student_logits` those of the students; `feature` is the input of the teacher's
    classifier; `target` (B,) int64: the target classes of the images, or the teacher's own predicted classes if None.
    """

    image: Tensor
    outputs: Outputs
    logits: Tensor
    student_logits: list[Tensor]
    feature: Tensor | None = None
    statistics: BatchStatistics | None = None
    target: Tensor | None = None
    independent: bool = False
    """The outputs are labels, of which an image may have any number, instead of classes."""

    def one_hot(self) -> Tensor:
        return generator_losses.one_hot(self.rows(self.logits), self.target)

    def information_entropy(self) -> Tensor:
        entropy = (
            generator_losses.information_entropy_of_each if self.independent else generator_losses.information_entropy
        )
        return entropy(self.logits)

    def rows(self, logits: Tensor) -> Tensor:
        """Logits in which each row is one choice among classes."""
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
        """The mean over the students of a loss (student's logits, teacher's logits)."""
        teacher = self.rows(self.logits)
        return torch.stack([loss(self.rows(logits), teacher) for logits in self.student_logits]).mean()


class ImageLoss:
    """The weighted terms of a synthesiser's loss, from the outputs of the teacher and the students.

    Gradients flow to the images only. The networks receive none, and the students' modes and statistics do not change.
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
        self.teacher = teacher
        self.weights = weights
        self.precision = precision
        self.device = device
        self.independent = independent
        self.statistics = statistics or (BatchStatistics() if weights.batch_statistics else None)
        self.feature_tap = penultimate(teacher) if weights.activation else None
        if self.feature_tap:
            teacher.request([self.feature_tap])

    def autocast(self) -> torch.autocast:
        """Autocast at the precision of a synthesiser's forward passes."""
        return torch.autocast(self.device.type, torch.bfloat16, enabled=self.precision == torch.bfloat16)

    def see(
        self,
        image_BCHW: Tensor,
        students: Mapping[str, nn.Module],
        target_B: Tensor | None = None,
        weights: Weights | None = None,
    ) -> tuple[Seen, dict[str, Tensor]]:
        """The networks' outputs for the images, and the unweighted terms whose weight is not 0; `weights` may
        replace those of the loss."""
        weights = weights or self.weights
        adversaries = list(students.values()) if weights.any(*AGAINST_STUDENTS) else []
        reading = self.statistics.reading() if self.statistics and weights.batch_statistics else nullcontext()
        with self.autocast(), evaluating(adversaries):
            with reading:
                outputs = self.teacher(image_BCHW)
            student_logits = [logits_of(student(image_BCHW)).float() for student in adversaries]
        feature = outputs.taps[self.feature_tap].float() if self.feature_tap else None
        made_of = image_BCHW, outputs, outputs.logits.float(), student_logits, feature, self.statistics, target_B
        seen = Seen(*made_of, independent=self.independent)
        counted = [each.name for each in fields(weights) if getattr(weights, each.name)]
        return seen, {name: getattr(seen, name)() for name in counted if student_logits or name not in AGAINST_STUDENTS}

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
    """The logits of a network's output, tapped or bare."""
    return output.logits if isinstance(output, Outputs) else output
