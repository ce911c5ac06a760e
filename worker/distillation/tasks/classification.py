"""Classification: one class for each sample.

Shapes: N samples, K classes.
"""

from collections.abc import Mapping
from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F
from torch import Tensor

from worker.distillation.contract_check.comparison import Judgement, by_truth, names_class
from worker.distillation.errors import Problem, SpecError
from worker.distillation.task import Predict, Task, TeacherAssessment, predict

if TYPE_CHECKING:
    from worker.distillation.data.images import Images

CALIBRATION_BINS = 15
"""As in Guo et al., "On calibration of modern neural networks", arXiv:1706.04599."""


class Classification(Task):
    """One of several classes for each sample, predicted by the largest logit."""

    ground_truth = {"name": "cross_entropy"}
    objective_defaults = (
        {"name": "cross_entropy", "weight": 0.1},
        {"name": "kd", "weight": 0.9, "temperature": 4.0},
    )
    main_metric = "accuracy"

    def check_labels(self, images: "Images", outputs: int, pointer: str) -> None:
        check_labels(images, outputs, pointer)

    def evaluate(
        self, network_fn: Predict, images: "Images", batch_size: int, teacher_fn: Predict | None = None
    ) -> dict[str, float]:
        return evaluate(network_fn, images, batch_size, teacher_fn)

    def assess_teacher(self, teacher_fn: Predict, images: "Images", batch_size: int) -> TeacherAssessment:
        """Assesses the accuracy; within three standard deviations of guessing is chance level."""
        right = evaluate(teacher_fn, images, batch_size)["accuracy"]
        chance = 1 / images.classes
        worthless = right <= chance + 3 * (chance * (1 - chance) / len(images)) ** 0.5
        return TeacherAssessment(f"{right:.1%} of {len(images)} images classified correctly", worthless)

    def judgement(self, fields: Mapping[str, Tensor]) -> Judgement:
        return by_truth(names_class, fields["label"], "is right on {score} of {count} training images")


def check_labels(images: "Images", classes: int, pointer: str) -> None:
    """Check that a network with this many classes can be compared with the labels.

    Raises:
        SpecError: the images do not have one class each, or a label is too large.
    """
    if "label" not in images.fields or images.label.ndim != 1:
        raise SpecError([Problem(pointer, "does not have one class for each image")], "Choose another dataset or task.")
    largest = int(images.label.max())
    if largest >= classes:
        message = f"has labels up to {largest}, but the student has {classes} classes (0 to {classes - 1})"
        raise SpecError([Problem(pointer, message)], "Choose a dataset of the same classes, or set student/classes.")


def evaluate(
    network_fn: Predict, images: "Images", batch_size: int, teacher_fn: Predict | None = None
) -> dict[str, float]:
    """Metrics of a network on a split, all samples once, without gradient; the caller sets eval mode.

    `accuracy`, `top5_accuracy` (with more than five classes), `cross_entropy` (nats), `calibration_error` (expected
    calibration error of the top class, 15 bins of equal width), and with a teacher `agreement` (share of samples with
    the same top class) and `teacher_kl` (mean KL(teacher || network), nats).
    """
    logits, teacher_logits = predict(network_fn, images, batch_size, teacher_fn)
    label = images.label.cpu()
    metrics = {
        "accuracy": accuracy(logits, label),
        "cross_entropy": F.cross_entropy(logits, label),
        "calibration_error": calibration_error(logits, label),
    }
    if logits.shape[1] > 5:
        metrics["top5_accuracy"] = accuracy(logits, label, top=5)
    if teacher_logits is not None:
        log_p, log_q = teacher_logits.log_softmax(1), logits.log_softmax(1)
        metrics["agreement"] = (logits.argmax(1) == teacher_logits.argmax(1)).double().mean()
        metrics["teacher_kl"] = F.kl_div(log_q, log_p, reduction="batchmean", log_target=True)
    return {name: float(value) for name, value in metrics.items()}


def accuracy(logits: Tensor, label: Tensor, top: int = 1) -> Tensor:
    """Share of samples whose label is among the `top` largest of logits (N, K)."""
    return (logits.topk(top, dim=1).indices == label[:, None]).any(1).double().mean()


def calibration_error(logits: Tensor, label: Tensor, bins: int = CALIBRATION_BINS) -> Tensor:
    """Expected calibration error: the mean difference between confidence and accuracy over bins of confidence,
    weighted by their share of the samples."""
    confidence, top = logits.softmax(1).max(1)
    chosen = (confidence * bins).ceil().long().clamp(1, bins) - 1
    gap = (top == label).to(logits) - confidence
    return torch.zeros(bins).to(logits).index_add_(0, chosen, gap).abs().sum() / len(label)
