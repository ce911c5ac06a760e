"""Multi-label classification: each of several labels is present or not.

Shapes: N samples, K labels.
"""

from collections.abc import Mapping
from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F
from torch import Tensor

from worker.distillation.contract_check.comparison import Judgement, by_truth, names_label
from worker.distillation.errors import Problem, SpecError
from worker.distillation.losses.logits import binary_kl
from worker.distillation.task import Predict, Task, TeacherAssessment, exceeds_chance, predict

if TYPE_CHECKING:
    from worker.distillation.data.images import Images


class MultiLabel(Task):
    """Any number of several labels for each sample, each predicted by the sign of its own logit."""

    labels = "multi_label"
    least_outputs = 1
    ground_truth = {"name": "binary_cross_entropy"}
    objective_defaults = (
        {"name": "binary_cross_entropy", "weight": 0.1},
        {"name": "kd", "weight": 0.9, "temperature": 4.0, "outputs": "sigmoid"},
    )
    main_metric = "mean_average_precision"

    def check_labels(self, images: "Images", outputs: int, pointer: str) -> None:
        label = images.fields.get("label")
        if label is None or label.ndim != 2:
            raise SpecError(
                [Problem(pointer, "does not say for each label whether an image has it")], "Choose another dataset."
            )
        if label.shape[1] != outputs:
            message = f"has {label.shape[1]} labels, but the student has {outputs} outputs"
            raise SpecError([Problem(pointer, message)], "Choose a dataset of the same labels, or set student/classes.")

    def evaluate(
        self, network_fn: Predict, images: "Images", batch_size: int, teacher_fn: Predict | None = None
    ) -> dict[str, float]:
        """The metrics of multi-label classification.

        `mean_average_precision` (over labels that some image has), `f1_micro` (of all decisions) and `f1_macro` (mean
        over labels that some image has or is predicted to have) at a probability of 0.5, `exact_match` (share of images
        with all labels correct), `binary_cross_entropy` (nats, mean over images and labels); with a teacher `agreement`
        (share of equal decisions) and `teacher_kl` (mean KL(teacher || network) of a decision, nats).
        """
        logits, teacher = predict(network_fn, images, batch_size, teacher_fn)
        label = images.label.cpu().bool()
        predicted = logits > 0
        metrics = {
            "mean_average_precision": average_precision(logits, label).nanmean(),
            "f1_micro": f1(predicted.flatten()[:, None], label.flatten()[:, None]).nanmean(),
            "f1_macro": f1(predicted, label).nanmean(),
            "exact_match": (predicted == label).all(1).double().mean(),
            "binary_cross_entropy": F.binary_cross_entropy_with_logits(logits, label.double()),
        }
        if teacher is not None:
            metrics["agreement"] = (predicted == (teacher > 0)).double().mean()
            metrics["teacher_kl"] = binary_kl(logits, teacher).mean()
        return {name: float(value) for name, value in metrics.items()}

    def assess_teacher(self, teacher_fn: Predict, images: "Images", batch_size: int) -> TeacherAssessment:
        """Assesses the mean average precision, against that with the images' labels shuffled."""
        logits, _ = predict(teacher_fn, images, batch_size)
        label = images.label.cpu().bool()
        found = float(average_precision(logits, label).nanmean())
        words = f"mean average precision {found:.3f} on {len(images)} images"
        shuffled = lambda order: float(average_precision(logits, label[order]).nanmean())  # noqa: E731
        return TeacherAssessment(words, not exceeds_chance(found, shuffled, len(label)))

    def judgement(self, fields: Mapping[str, Tensor]) -> Judgement:
        words = "is right with its most probable label on {score} of {count} training images"
        return by_truth(names_label, fields["label"], words)


def average_precision(logits: Tensor, label: Tensor) -> Tensor:
    """The area (K,) under the steps of precision over recall, by falling thresholds: `sum_t (R_t - R_t-1) P_t`; NaN
    for a label that no sample has. Samples (N, K) of equal logits share one threshold."""
    ordered, order = logits.sort(dim=0, descending=True)
    hits = label.gather(0, order).cumsum(0).double()
    last_of_ties = torch.cat([ordered[1:] != ordered[:-1], torch.ones_like(ordered[:1], dtype=torch.bool)])
    precision = hits / torch.arange(1, len(logits) + 1, device=logits.device)[:, None]
    areas = []
    for place, hit, share in zip(last_of_ties.unbind(1), hits.unbind(1), precision.unbind(1), strict=True):
        steps = hit[place].diff(prepend=hit.new_zeros(1))
        areas.append((steps * share[place]).sum() / hit[-1])
    return torch.stack(areas)


def f1(predicted: Tensor, label: Tensor) -> Tensor:
    """`2 TP / (2 TP + FP + FN)` of each label (K,) over samples (N, K); NaN for one that no sample has or is
    predicted to have."""
    right = 2 * (predicted & label).sum(0)
    return right / (predicted.sum(0) + label.sum(0)).double()
