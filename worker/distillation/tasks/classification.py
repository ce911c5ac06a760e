"""Classification: one label a sample; its ground-truth loss and its figures.

Shapes: B batch, K classes, N samples.
"""

from collections.abc import Callable
from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F
from torch import Tensor

from worker.distillation.errors import Problem, SpecError
from worker.distillation.pulse import pulse
from worker.distillation.step import Batch, Outputs

if TYPE_CHECKING:
    from worker.distillation.data.images import Images

CALIBRATION_BINS = 15
"""As in Guo et al., "On calibration of modern neural networks", arXiv:1706.04599."""

Predict = Callable[[Tensor], Outputs | Tensor]
"""Images (B, C, H, W), normalised, to `Outputs` or to logits (B, K)."""


def ground_truth_loss(outputs: Outputs, batch: Batch) -> Tensor:
    """Mean cross-entropy with the labels, in single precision."""
    return F.cross_entropy(outputs.logits.float(), batch.fields["label"])


def check_labels(images: "Images", classes: int, pointer: str) -> None:
    """See that a network of so many classes can be compared with the labels.

    Raises:
        SpecError: a label is too large.
    """
    largest = int(images.label.max())
    if largest >= classes:
        message = f"has labels up to {largest}, and the student tells {classes} classes apart (0 to {classes - 1})"
        raise SpecError([Problem(pointer, message)], "Name a dataset of the same classes, or set student/classes.")


def evaluate(
    network_fn: Predict, images: "Images", batch_size: int, teacher_fn: Predict | None = None
) -> dict[str, float]:
    """Figures of a network on a split, all samples once, without gradient; eval mode is the caller's to set.

    `accuracy`, `top5_accuracy` (with more than five classes), `cross_entropy` (nats), `calibration_error` (expected
    calibration error of the top class, 15 bins of equal width), and with a teacher `agreement` (share of samples with
    the same top class) and `teacher_kl` (mean KL(teacher || network), nats).
    """
    logits, teacher_logits = predict(network_fn, images, batch_size, teacher_fn)
    label = images.label.cpu()
    figures = {
        "accuracy": accuracy(logits, label),
        "cross_entropy": F.cross_entropy(logits, label),
        "calibration_error": calibration_error(logits, label),
    }
    if logits.shape[1] > 5:
        figures["top5_accuracy"] = accuracy(logits, label, top=5)
    if teacher_logits is not None:
        log_p, log_q = teacher_logits.log_softmax(1), logits.log_softmax(1)
        figures["agreement"] = (logits.argmax(1) == teacher_logits.argmax(1)).double().mean()
        figures["teacher_kl"] = F.kl_div(log_q, log_p, reduction="batchmean", log_target=True)
    return {name: float(value) for name, value in figures.items()}


@torch.no_grad()
def predict(
    network_fn: Predict, images: "Images", batch_size: int, teacher_fn: Predict | None = None
) -> tuple[Tensor, Tensor | None]:
    """Logits (N, K) of the network, and of the teacher where there is one, on the CPU in double precision."""
    rows: list[Tensor] = []
    teacher_rows: list[Tensor] = []
    for part in images.image.split(batch_size):
        pulse()
        image = images.normalise(part)
        rows.append(_logits(network_fn(image)))
        if teacher_fn is not None:
            teacher_rows.append(_logits(teacher_fn(image)))
    return torch.cat(rows), torch.cat(teacher_rows) if teacher_rows else None


def _logits(given: Outputs | Tensor) -> Tensor:
    return (given.logits if isinstance(given, Outputs) else given).cpu().double()


def accuracy(logits: Tensor, label: Tensor, top: int = 1) -> Tensor:
    """Share of samples whose label is among the `top` largest of logits (N, K)."""
    return (logits.topk(top, dim=1).indices == label[:, None]).any(1).double().mean()


def calibration_error(logits: Tensor, label: Tensor, bins: int = CALIBRATION_BINS) -> Tensor:
    """Expected calibration error: the mean distance of confidence and accuracy over bins of confidence, by their share."""
    confidence, top = logits.softmax(1).max(1)
    chosen = (confidence * bins).ceil().long().clamp(1, bins) - 1
    gap = (top == label).to(logits) - confidence
    return torch.zeros(bins).to(logits).index_add_(0, chosen, gap).abs().sum() / len(label)
