"""Task: what the networks of a job are for, what they learn from, and by which metrics they are measured.

Shapes: B batch, N samples, K outputs of a network: classes, labels, values, or dimensions of an embedding; C channels, H height,
W width.
"""

import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

import torch
from torch import Tensor

from worker.distillation.data.truth import DENSE, Labels
from worker.distillation.introspection.tracing import one_row
from worker.distillation.method import Method
from worker.distillation.process.heartbeat import pulse
from worker.distillation.step import Outputs

if TYPE_CHECKING:
    from worker.distillation.contract_check.comparison import Judgement
    from worker.distillation.data.images import Images

Predict = Callable[[Tensor], Outputs | Tensor]
"""Maps images (B, C, H, W), normalised, to `Outputs` or to a network's output (B, K)."""
SHUFFLES, ROUNDING = 20, 1e-9
FEWEST_JUDGED = 32
"""Images on which large outputs are judged however long it takes."""
EVERY_TASK = ("classification", "multi_label", "regression", "embedding")
"""The tasks whose networks return one row of outputs for each sample."""
MAP_TASKS = ("segmentation", "depth")
"""The tasks whose networks return a map of outputs (B, K, H, W)."""
DENSE_TASKS = (*MAP_TASKS, "detection")
RELATIVE_TOLERANCE, ABSOLUTE_TOLERANCE = 1e-4, 1e-5
"""An exported file's output may differ by `ABSOLUTE_TOLERANCE + RELATIVE_TOLERANCE * (the largest output of the batch)`."""


@dataclass(frozen=True)
class TeacherAssessment:
    """A teacher's quality on some training images, in words, and whether it is chance level."""

    words: str
    chance: bool


class Task(Method):
    """What networks are for. A task holds no state. It measures without gradient, in the mode that the caller has
    set: evaluation mode."""

    labels: ClassVar[Labels] = "class"
    """The kind of labels that a dataset must have."""
    field: ClassVar[str] = "label"
    """The batch field that holds them."""
    labels_are_outputs: ClassVar[bool] = True
    """Whether a network has one output for each class, label or target of the dataset."""
    output: ClassVar[str] = "logits"
    """Name of a network's output in exported files."""
    least_outputs: ClassVar[int] = 2
    ground_truth: ClassVar[Mapping[str, Any]] = {}
    """The objective that learns from the dataset alone, as in a job's spec."""
    objective_defaults: ClassVar[tuple[Mapping[str, Any], ...]] = ()
    """The objectives of a job with a teacher whose spec names none."""
    source_defaults: ClassVar[Mapping[str, Any]] = {}
    """Values of a source's parameters that differ from its own defaults, where it has these parameters."""
    no_synthesis: ClassVar[str] = ""
    """Why no source synthesises images for it, as a clause; empty if some do, or if there is nothing to say."""
    main_metric: ClassVar[str] = ""
    """The metric of `evaluate` by which the best weights are chosen."""
    higher_is_better: ClassVar[bool] = True

    student_first: ClassVar[bool] = False
    """Whether the student's outputs are given to the teacher, such as the regions that it should look at."""

    @property
    def dense(self) -> bool:
        """Whether labels are places in the image: masks, depth or boxes."""
        return self.labels in DENSE

    def check_output(self, output: Any, examples: int) -> str | None:
        """What is wrong with a network's output for this number of samples, in words that follow "the network"; None if it is
        right: one row (B, K)."""
        return one_row(output, examples)

    def read(
        self,
        network: Callable[..., Outputs],
        image: Tensor,
        fields: Mapping[str, Tensor],
        shared: Outputs | None = None,
    ) -> Outputs:
        """A network's outputs for a batch in training. `fields` are the batch's; `shared` are the student's outputs, for a
        teacher if `student_first`."""
        return network(image)

    def check_labels(self, images: "Images", outputs: int, pointer: str) -> None:
        """Check that a network with this many outputs can learn from the dataset's labels, and be compared with them.

        Raises:
            SpecError: it cannot; `pointer` is the dataset's place in the job's spec.
        """
        raise NotImplementedError

    def comparable(self, outputs: int, images: "Images") -> bool:
        """Whether a network with this many outputs can be evaluated on these images."""
        return not self.labels_are_outputs or outputs == images.classes

    def alike(self, outputs: int, others: int) -> bool:
        """Whether the outputs of two networks with these numbers of outputs can be compared."""
        return outputs == others

    def evaluate(
        self, network_fn: Predict, images: "Images", batch_size: int, teacher_fn: Predict | None = None
    ) -> dict[str, float]:
        """Metrics of a network on a split, all samples once; with a teacher also the metrics of their agreement."""
        raise NotImplementedError

    def compare_export(self, expected: Any, given: Any) -> str | None:
        """What is wrong with the outputs of an exported file, in words that follow "the file's outputs"; None if they are those
        of the network within rounding."""
        if given.shape != expected.shape:
            return f"have the shape {tuple(given.shape)}, not {tuple(expected.shape)}"
        allowed = ABSOLUTE_TOLERANCE + RELATIVE_TOLERANCE * float(expected.abs().max())
        difference = float((given - expected).abs().max())
        if difference <= allowed:
            return None
        return f"differ from the student's by {difference:.2g}, more than {allowed:.2g}"

    def picture(self, image: Tensor, output: Outputs | None, truth: Mapping[str, Tensor]) -> Tensor | None:
        """An overlay (3, H, W) uint8 of an image (C, H, W) uint8 with a network's outputs for it (a batch of one), or with the
        sample's fields if `output` is None; None if the task's answers have no place in the image."""
        return None

    def by_class(self, network_fn: Predict, images: "Images", batch_size: int) -> dict[str, Any] | None:
        """The results class by class, for the report: `images`, their number by class, and lists by class; None if the task has none
        of its own."""
        return None

    def assess_teacher(self, teacher_fn: Predict, images: "Images", batch_size: int) -> TeacherAssessment:
        """Assess a teacher on these training images, before any training."""
        raise NotImplementedError

    def judgement(self, fields: Mapping[str, Tensor]) -> "Judgement | None":
        """When outputs for the images with these fields are right, image by image; None if outputs are not judged one by one."""
        return None

    def better(self, value: float, than: float | None) -> bool:
        """Whether one value of `main_metric` is better than another, or than None."""
        return than is None or (value > than if self.higher_is_better else value < than)


@torch.no_grad()
def predict(
    network_fn: Predict, images: "Images", batch_size: int, teacher_fn: Predict | None = None
) -> tuple[Tensor, Tensor | None]:
    """Outputs (N, K) of the network, and of the teacher if there is one, on the CPU in double precision."""
    rows = _predict(network_fn, images, batch_size)
    return rows, None if teacher_fn is None else _predict(teacher_fn, images.for_teacher, batch_size)


@torch.no_grad()
def answers(
    network_fn: Predict, images: "Images", batch_size: int, teacher_fn: Predict | None = None
) -> Iterator[tuple[slice, Outputs, Outputs | None]]:
    """Batch by batch the samples, the network's outputs and those of the teacher, for metrics of outputs that are too large to be
    kept together."""
    other = images.for_teacher
    for start in range(0, len(images), batch_size):
        pulse()
        part = slice(start, start + batch_size)
        image = images.normalise(images.pixels(part))
        teacher = None if teacher_fn is None else _outputs(teacher_fn(other.normalise(other.pixels(part))))
        yield part, _outputs(network_fn(image)), teacher


def _outputs(given: Outputs | Tensor) -> Outputs:
    return given if isinstance(given, Outputs) else Outputs(given)


class Remembered:
    """A network whose outputs for certain images are computed once, however often they are measured."""

    def __init__(self, network_fn: Predict, images: "Images"):
        self._network_fn = network_fn
        self._images = images
        self._rows: Tensor | None = None

    def __call__(self, image: Tensor) -> Outputs | Tensor:
        return self._network_fn(image)

    def rows(self, images: "Images", batch_size: int) -> Tensor:
        """The outputs (N, K) for all images."""
        if images is not self._images:
            return _predict(self._network_fn, images, batch_size)
        if self._rows is None:
            self._rows = _predict(self._network_fn, images, batch_size)
        return self._rows


def _predict(network_fn: Predict, images: "Images", batch_size: int) -> Tensor:
    if isinstance(network_fn, Remembered):
        return network_fn.rows(images, batch_size)
    rows: list[Tensor] = []
    for part in images.batches(batch_size):
        pulse()
        rows.append(_logits(network_fn(images.normalise(part))))
    return torch.cat(rows).cpu().double()  # one copy: a copy of each batch would wait for the device


def exceeds_chance(value: float, shuffled: Callable[[Tensor], float], count: int) -> bool:
    """Whether a metric is more than three standard deviations above its mean with shuffled labels of `count` samples.

    `shuffled` returns the metric for labels in another order (count,). NaN is treated as exceeding.
    """
    if math.isnan(value):
        return True
    draw = torch.Generator().manual_seed(0)
    values = [shuffled(torch.randperm(count, generator=draw)) for _ in range(SHUFFLES)]
    chance = torch.tensor(values, dtype=torch.float64)
    chance = chance[~chance.isnan()]
    return len(chance) < 2 or value > float(chance.mean() + 3 * chance.std()) + ROUNDING


def _logits(given: Outputs | Tensor) -> Tensor:
    return given.logits if isinstance(given, Outputs) else given
