"""Segmentation: one class for each pixel.

Shapes: N samples, B batch, K classes, H height, W width.
"""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from worker.distillation.contract_check.comparison import Judgement
from worker.distillation.data.fields import IGNORED
from worker.distillation.errors import Problem, SpecError
from worker.distillation.introspection.tracing import one_map
from worker.distillation.losses.maps import pixel_kl, sized
from worker.distillation.step import Outputs
from worker.distillation.task import FEWEST_JUDGED, Predict, Task, TeacherAssessment, answers
from worker.distillation.tasks.pictures import blended, palette

if TYPE_CHECKING:
    from worker.distillation.data.images import Images

NAMED_AT_MOST = 64
"""Maximum number of classes for which each has its own metric."""


class Segmentation(Task):
    """One of several classes for each pixel, predicted by the largest logit; 255 in a mask is ignored."""

    labels = "mask"
    field = "mask"
    ground_truth = {"name": "pixel_cross_entropy"}
    objective_defaults = (
        {"name": "pixel_cross_entropy", "weight": 1.0},
        {"name": "pixel_wise", "weight": 10.0},
    )
    source_defaults = {"augmentation": "scale_crop_flip"}
    no_synthesis = (
        "synthesised images show one class each, and a mask needs scenes of several; use `substitute` with real images"
    )
    main_metric = "mean_iou"

    def check_output(self, output: Any, examples: int) -> str | None:
        return one_map(output, examples)

    def check_labels(self, images: "Images", outputs: int, pointer: str) -> None:
        mask = images.fields.get("mask")
        if mask is None:
            raise SpecError([Problem(pointer, "has no masks")], "Choose another dataset or task.")
        largest = max((int(each[each != IGNORED].max()) for each in mask if bool((each != IGNORED).any())), default=0)
        if largest >= outputs:
            message = f"has masks with classes up to {largest}, but the student has {outputs} (0 to {outputs - 1})"
            raise SpecError(
                [Problem(pointer, message)], "Choose a dataset of the same classes, or set student/classes."
            )

    def evaluate(
        self, network_fn: Predict, images: "Images", batch_size: int, teacher_fn: Predict | None = None
    ) -> dict[str, float]:
        """The metrics of segmentation, over the pixels whose class is known.

        `mean_iou`, the mean of intersection over union of the classes that the masks or the predictions have; `iou/NAME` of each of
        up to 64 of these; `pixel_accuracy`; with a teacher `agreement`, the share of all pixels of the same class, and `teacher_kl`,
        the mean KL(teacher || network) over all pixels in nats.
        """
        confusion, same, divergence, pixels = None, 0.0, 0.0, 0
        for part, outputs, teacher in answers(network_fn, images, batch_size, teacher_fn):
            mask = images.fields["mask"][part]
            logits = sized(outputs.logits, tuple(mask.shape[1:]))
            found = confusion_of(logits.argmax(1), mask, logits.shape[1])
            confusion = found if confusion is None else confusion + found
            if teacher is not None:
                theirs = sized(teacher.logits, tuple(mask.shape[1:]))
                same += float((logits.argmax(1) == theirs.argmax(1)).sum())
                divergence += float(pixel_kl(logits.double(), theirs.double(), 1.0)) * mask.numel()
                pixels += mask.numel()
        assert confusion is not None
        metrics = _metrics(confusion, images.class_names)
        if pixels:
            metrics |= {"agreement": same / pixels, "teacher_kl": divergence / pixels}
        return metrics

    def by_class(self, network_fn: Predict, images: "Images", batch_size: int) -> dict[str, Any] | None:
        """`images` and `pixels` with each class, `iou`, `recall` and `precision` of it (null where it has no pixels), and `confusion`
        (K, K) with a row for each true class."""
        confusion = self._confusion(network_fn, images, batch_size)
        right, true, predicted = confusion.diagonal(), confusion.sum(1), confusion.sum(0)
        masks = images.fields["mask"]
        return {
            "images": [int((masks == number).flatten(1).any(1).sum()) for number in range(len(true))],
            "pixels": true.tolist(),
            "iou": _shares(right, true + predicted - right),
            "recall": _shares(right, true),
            "precision": _shares(right, predicted),
            "confusion": confusion.tolist() if len(confusion) <= NAMED_AT_MOST else None,
        }

    def assess_teacher(self, teacher_fn: Predict, images: "Images", batch_size: int) -> TeacherAssessment:
        """Assesses the mean IoU; that of the best map that is the same for all images, or of the maps of other images, is chance
        level."""
        confusion, shuffled = None, None
        for part, outputs, _ in answers(teacher_fn, images, batch_size):
            mask = images.fields["mask"][part]
            logits = sized(outputs.logits, tuple(mask.shape[1:]))
            chosen, classes = logits.argmax(1), logits.shape[1]
            own, other = confusion_of(chosen, mask, classes), confusion_of(chosen.roll(1, 0), mask, classes)
            confusion = own if confusion is None else confusion + own
            shuffled = other if shuffled is None else shuffled + other
        assert confusion is not None and shuffled is not None
        found, by_chance = mean_iou(confusion), max(mean_iou(shuffled), _of_one_class(confusion))
        words = f"mean IoU {found:.3f} on {len(images)} images ({by_chance:.3f} by chance)"
        return TeacherAssessment(words, len(images) > 1 and found <= by_chance)

    def judgement(self, fields: Mapping[str, Tensor]) -> Judgement:
        """Judges the mean IoU of each image, of the classes that its mask or the prediction has."""
        mask = fields["mask"]

        def judge(logits: Tensor, part: slice) -> Tensor:
            true = mask[part]
            chosen = sized(logits, tuple(true.shape[1:])).argmax(1)
            pairs = zip(chosen.split(1), true.split(1), strict=True)
            return torch.tensor([mean_iou(confusion_of(*pair, logits.shape[1])) for pair in pairs])

        words = "has a mean IoU of {score} image by image on {count} training images"
        return Judgement(
            judge, lambda count: _iou_of_one_class(mask[:count]), words, "of {score}", "iou", FEWEST_JUDGED
        )

    def picture(self, image: Tensor, output: Outputs | None, truth: Mapping[str, Tensor]) -> Tensor:
        """The classes as colours over the image; ignored pixels stay as they are."""
        if output is None:
            chosen = truth["mask"].cpu().long()
        else:
            chosen = sized(output.logits, tuple(image.shape[1:])).argmax(1)[0].cpu()
        return blended(image, palette()[chosen].permute(2, 0, 1), chosen != IGNORED)

    def _confusion(self, network_fn: Predict, images: "Images", batch_size: int) -> Tensor:
        found = []
        for part, outputs, _ in answers(network_fn, images, batch_size):
            mask = images.fields["mask"][part]
            logits = sized(outputs.logits, tuple(mask.shape[1:]))
            found.append(confusion_of(logits.argmax(1), mask, logits.shape[1]))
        return torch.stack(found).sum(0)


def confusion_of(chosen_BHW: Tensor, mask_BHW: Tensor, classes: int) -> Tensor:
    """Number of pixels (K, K) by true class, in rows, and predicted class; on the CPU."""
    known = mask_BHW < classes
    pairs = mask_BHW[known].long() * classes + chosen_BHW[known]
    return torch.bincount(pairs, minlength=classes**2).reshape(classes, classes).cpu()


def mean_iou(confusion_KK: Tensor) -> float:
    """Mean of intersection over union of the classes that have any pixel; NaN if none has."""
    right = confusion_KK.diagonal().double()
    union = confusion_KK.sum(0) + confusion_KK.sum(1) - right
    return float((right / union)[union > 0].mean())


def _metrics(confusion: Tensor, names: tuple[str, ...]) -> dict[str, float]:
    right = confusion.diagonal().double()
    union = confusion.sum(0) + confusion.sum(1) - right
    metrics = {"mean_iou": mean_iou(confusion), "pixel_accuracy": float(right.sum() / confusion.sum().clamp(min=1))}
    if len(names) == len(confusion) <= NAMED_AT_MOST:
        pairs = zip(names, (right / union).tolist(), union.tolist(), strict=True)
        metrics |= {f"iou/{name}": value for name, value, total in pairs if total}
    return metrics


def _of_one_class(confusion: Tensor) -> float:
    """The mean IoU of the best prediction of one class everywhere."""
    true = confusion.sum(1).double()
    return float(true.max() / true.sum().clamp(min=1) / (true > 0).sum().clamp(min=1))


def _iou_of_one_class(mask_NHW: Tensor) -> float:
    """The mean over images of the mean IoU of each, of the best prediction of one class everywhere."""
    counts = torch.stack([each.flatten().bincount(minlength=IGNORED + 1) for each in mask_NHW])[:, :IGNORED].double()
    share = counts / counts.sum(1, keepdim=True).clamp(min=1)
    classes = (counts > 0).sum(1, keepdim=True) + (counts == 0)
    return float((share / classes).mean(0).max())


def _shares(part: Tensor, of: Tensor) -> list[float | None]:
    return [int(one) / int(all_) if all_ else None for one, all_ in zip(part, of, strict=True)]
