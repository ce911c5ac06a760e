"""What a student's metrics hide: its results class by class, what it confuses, and how far its confidence can be trusted.

Shapes: N samples, K classes, B bins.
"""

from typing import Any

import torch
from torch import Tensor

from worker.distillation.data.images import Images
from worker.distillation.task import Predict, predict
from worker.distillation.tasks.classification import CALIBRATION_BINS

MOST_CLASSES = 200
"""Most classes whose results are listed one by one."""
MOST_CONFUSED = 40
"""Most classes for which the whole confusion matrix is listed."""


def class_results(student_fn: Predict, teacher_fn: Predict | None, images: Images, batch_size: int) -> dict[str, Any]:
    """`images` by class, and for the student and the teacher `recall` by class (null for a class without images), `confusion`
    (K, K) with a row for each true class (null above 40 classes) and `calibration`: `count`, `confidence` and `accuracy` of
    each bin of confidence (B). All samples once, without gradient; the caller sets eval mode. The teacher's are null without one.
    """
    logits, teacher_logits = predict(student_fn, images, batch_size, teacher_fn)
    label = images.label.cpu()
    classes = logits.shape[1]
    return {
        "images": torch.bincount(label, minlength=classes).tolist(),
        "student": _results(logits.cpu(), label),
        "teacher": None if teacher_logits is None else _results(teacher_logits.cpu(), label),
    }


def _results(logits: Tensor, label: Tensor) -> dict[str, Any]:
    classes = logits.shape[1]
    confusion_KK = torch.bincount(label * classes + logits.argmax(1), minlength=classes**2).reshape(classes, classes)
    total_K = confusion_KK.sum(1)
    right_K = confusion_KK.diagonal() / total_K.clamp(min=1)
    recall = [value if count else None for value, count in zip(right_K.tolist(), total_K.tolist(), strict=True)]
    matrix = confusion_KK.tolist() if classes <= MOST_CONFUSED else None
    return {"recall": recall, "confusion": matrix, "calibration": calibration(logits, label)}


def calibration(logits: Tensor, label: Tensor, bins: int = CALIBRATION_BINS) -> dict[str, list[Any]]:
    """`count`, mean `confidence` and `accuracy` of the samples in each of B bins of confidence of equal width, as in Guo et
    al., arXiv:1706.04599; null in a bin without samples."""
    confidence, top = logits.double().softmax(1).max(1)
    chosen = (confidence * bins).ceil().long().clamp(1, bins) - 1
    count = torch.bincount(chosen, minlength=bins)
    sums = [
        torch.zeros(bins, dtype=torch.float64).index_add_(0, chosen, each)
        for each in (confidence, (top == label).double())
    ]
    means = [
        [value / number if number else None for value, number in zip(total.tolist(), count.tolist(), strict=True)]
        for total in sums
    ]
    return {"count": count.tolist(), "confidence": means[0], "accuracy": means[1]}
