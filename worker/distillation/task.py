"""Task: what the networks of a job are for: what they learn from, and by which metrics they are measured.

Shapes: B batch, N samples, K outputs of a network: classes, labels, values, or dimensions of an embedding.
"""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

import torch
from torch import Tensor

from worker.distillation.data.truth import Labels
from worker.distillation.method import Method
from worker.distillation.process.heartbeat import pulse
from worker.distillation.step import Outputs

if TYPE_CHECKING:
    from worker.distillation.data.images import Images

Predict = Callable[[Tensor], Outputs | Tensor]
"""Images (B, C, H, W), normalised, to `Outputs` or to what a network gives (B, K)."""
SHUFFLES, ROUNDING = 20, 1e-9
EVERY_TASK = ("classification", "multi_label", "regression", "embedding")


@dataclass(frozen=True)
class TeacherAssessment:
    """How well a teacher does on some training images, in words, and whether that is chance level."""

    words: str
    chance: bool


class Task(Method):
    """What networks are for. A task holds no state; what it measures, it measures in evaluation mode, which is the
    caller's to set, and without gradient."""

    labels: ClassVar[Labels] = "class"
    """What a dataset must say of each sample."""
    field: ClassVar[str] = "label"
    """The batch field that holds it."""
    labels_are_outputs: ClassVar[bool] = True
    """Whether a network has one output for each class, label or target of the dataset."""
    output: ClassVar[str] = "logits"
    """What a network's answer is called in files that others read."""
    least_outputs: ClassVar[int] = 2
    ground_truth: ClassVar[Mapping[str, Any]] = {}
    """The objective that learns from the dataset alone, as in a job's spec."""
    objective_defaults: ClassVar[tuple[Mapping[str, Any], ...]] = ()
    """The objectives of a job with a teacher whose user named none."""
    figure: ClassVar[str] = ""
    """The figure of `evaluate` by which the best weights are chosen."""
    higher_is_better: ClassVar[bool] = True

    def check_labels(self, images: "Images", outputs: int, pointer: str) -> None:
        """See that a network of so many outputs can learn from, and be compared with, what the dataset says.

        Raises:
            SpecError: it cannot; `pointer` is the dataset's place in the job's spec.
        """
        raise NotImplementedError

    def comparable(self, outputs: int, images: "Images") -> bool:
        """Whether a network of so many outputs can be evaluated on these images."""
        return not self.labels_are_outputs or outputs == images.classes

    def alike(self, outputs: int, others: int) -> bool:
        """Whether two networks of so many outputs can be compared by them."""
        return outputs == others

    def evaluate(
        self, network_fn: Predict, images: "Images", batch_size: int, teacher_fn: Predict | None = None
    ) -> dict[str, float]:
        """Figures of a network on a split, all samples once; with a teacher also those of their likeness."""
        raise NotImplementedError

    def assess_teacher(self, teacher_fn: Predict, images: "Images", batch_size: int) -> TeacherAssessment:
        """Whether a teacher knows anything of these training images."""
        raise NotImplementedError

    def better(self, figure: float, than: float | None) -> bool:
        """Whether one value of `figure` is better than another, or than none."""
        return than is None or (figure > than if self.higher_is_better else figure < than)


@torch.no_grad()
def predict(
    network_fn: Predict, images: "Images", batch_size: int, teacher_fn: Predict | None = None
) -> tuple[Tensor, Tensor | None]:
    """Outputs (N, K) of the network, and of the teacher where there is one, on the CPU in double precision."""
    rows = _predict(network_fn, images, batch_size)
    return rows, None if teacher_fn is None else _predict(teacher_fn, images.for_teacher, batch_size)


def _predict(network_fn: Predict, images: "Images", batch_size: int) -> Tensor:
    rows: list[Tensor] = []
    for part in images.image.split(batch_size):
        pulse()
        rows.append(_answer(network_fn(images.normalise(part))))
    return torch.cat(rows)


def exceeds_chance(figure: float, shuffled: Callable[[Tensor], float], count: int) -> bool:
    """Whether a figure is more than three standard deviations above what it is when `count` samples' labels are shuffled.

    `shuffled` gives it for labels in another order (count,). A figure that is not a number says nothing: it exceeds.
    """
    if math.isnan(figure):
        return True
    draw = torch.Generator().manual_seed(0)
    figures = [shuffled(torch.randperm(count, generator=draw)) for _ in range(SHUFFLES)]
    chance = torch.tensor(figures, dtype=torch.float64)
    chance = chance[~chance.isnan()]
    return len(chance) < 2 or figure > float(chance.mean() + 3 * chance.std()) + ROUNDING


def _answer(given: Outputs | Tensor) -> Tensor:
    return (given.logits if isinstance(given, Outputs) else given).cpu().double()
