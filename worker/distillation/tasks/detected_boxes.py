"""Metrics of detections: COCO's mean average precision, and how many objects are found.

Shapes: B batch, M objects of an image, D detections of an image, K classes. Boxes are (x1, y1, x2, y2) in pixels.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from worker.distillation.data.fields import is_box
from worker.distillation.errors import EngineError

THRESHOLD = 0.5
"""Least intersection over union of a box that is found."""
CROWDED = 100
"""Number of detections of an image that COCO counts; raised where images have more objects."""
Sample = Mapping[str, Tensor]
"""`boxes` (n, 4) and `labels` (n,) of an image; of detections also `scores` (n,), of objects perhaps `iscrowd` (n,)."""


def truth_of(fields: Mapping[str, Tensor], crowds: bool = True) -> list[dict[str, Tensor]]:
    """The objects of each image of a batch, without padding; boxes of crowds have `iscrowd` 1, or are left out."""
    boxes, label = fields["boxes"], fields["box_label"]
    crowd = fields.get("crowd", torch.zeros_like(label))
    kept = is_box(boxes) & (label >= 0)
    if not crowds:
        kept &= crowd == 0
    found = []
    for rows in range(len(boxes)):
        chosen = kept[rows]
        found.append(
            {"boxes": boxes[rows][chosen], "labels": label[rows][chosen], "iscrowd": crowd[rows][chosen].long()}
        )
    return found


def overlaps(boxes_D4: Tensor, others_M4: Tensor) -> Tensor:
    """Intersection over union (D, M) of all pairs of boxes."""
    low = torch.maximum(boxes_D4[:, None, :2], others_M4[None, :, :2])
    high = torch.minimum(boxes_D4[:, None, 2:], others_M4[None, :, 2:])
    both = (high - low).clamp(min=0).prod(2)
    areas = [(each[:, 2:] - each[:, :2]).prod(1) for each in (boxes_D4, others_M4)]
    return both / (areas[0][:, None] + areas[1][None] - both).clamp(min=torch.finfo(both.dtype).tiny)


def found_objects(detected: Sample, objects: Sample) -> Tensor:
    """Which objects (M,) are found by detections of their class; each detection, in the order given, finds the object of the largest
    overlap that is not found yet."""
    found = torch.zeros(len(objects["boxes"]), dtype=torch.bool)
    if not len(found) or not len(detected["boxes"]):
        return found
    overlap = overlaps(detected["boxes"].cpu(), objects["boxes"].cpu())
    overlap[detected["labels"].cpu()[:, None] != objects["labels"].cpu()] = 0
    for row in overlap:
        value, place = row.masked_fill(found, 0).max(0)
        if value >= THRESHOLD:
            found[place] = True
    return found


def share_found(detected: Sequence[Sample], objects: Sequence[Sample]) -> float:
    """The share of objects that are found by as many of the best detections of an image as it has objects; NaN without objects."""
    pairs = list(zip(detected, objects, strict=True))
    right = sum(int(found_objects(_best(mine, len(truth["boxes"])), truth).sum()) for mine, truth in pairs)
    count = sum(len(truth["boxes"]) for _, truth in pairs)
    return right / count if count else float("nan")


def agreement(detected: Sequence[Sample], others: Sequence[Sample], score: float = 0.5) -> float:
    """F1 of two networks' detections above a score: twice the pairs, divided by all detections; NaN without any."""
    pairs = [(_above(mine, score), _above(theirs, score)) for mine, theirs in zip(detected, others, strict=True)]
    both = sum(int(found_objects(mine, theirs).sum()) for mine, theirs in pairs)
    count = sum(len(mine["boxes"]) + len(theirs["boxes"]) for mine, theirs in pairs)
    return 2 * both / count if count else float("nan")


class AveragePrecision:
    """COCO's average precision, batch by batch, by torchmetrics.

    Raises:
        EngineError: the libraries that compute it are not installed.
    """

    def __init__(self, most: int):
        """`most` is the largest number of detections of an image that counts."""
        try:
            from torchmetrics.detection import MeanAveragePrecision

            self._metric: Any = MeanAveragePrecision(
                box_format="xyxy",
                iou_type="bbox",
                class_metrics=True,
                max_detection_thresholds=[1, 10, max(CROWDED, most)],
                backend="faster_coco_eval",
            )
        except (ImportError, ModuleNotFoundError) as error:
            raise EngineError(
                f"average precision needs the packages torchmetrics and faster-coco-eval: {error}",
                "Install them, such as with `pip install 'distillery[worker]'`.",
            ) from error
        self._metric.warn_on_many_detections = False
        self.most = max(CROWDED, most)

    def add(self, detected: Sequence[Sample], objects: Sequence[Sample]) -> None:
        """Add images."""
        self._metric.update([_on_cpu(each) for each in detected], [_on_cpu(each) for each in objects])

    def values(self, class_names: Sequence[str]) -> dict[str, float]:
        """`map` (mean over classes, and over IoU from 0.5 to 0.95), `map50` and `map75` (at an IoU of 0.5 and 0.75), `recall` (the mean
        highest recall over IoU), `map_small`, `map_medium` and `map_large` where there are such objects (areas below 32², to 96²,
        and above), and `map/NAME` of each class; NaN for classes without objects."""
        found = self._metric.compute()
        metrics = {
            "map": found["map"],
            "map50": found["map_50"],
            "map75": found["map_75"],
            "recall": found[f"mar_{self.most}"],
        }
        sizes = {f"map_{size}": found[f"map_{size}"] for size in ("small", "medium", "large")}
        metrics |= {name: value for name, value in sizes.items() if value >= 0}
        by_class = dict(
            zip(found["classes"].reshape(-1).tolist(), found["map_per_class"].reshape(-1).tolist(), strict=True)
        )
        values = {name: _or_nan(float(value)) for name, value in metrics.items()}
        return values | {f"map/{name}": _or_nan(by_class.get(number, -1.0)) for number, name in enumerate(class_names)}


def _or_nan(value: float) -> float:
    """COCO says -1 where there is nothing to measure."""
    return value if value >= 0 else float("nan")


def _best(detected: Sample, count: int) -> dict[str, Tensor]:
    order = detected["scores"].argsort(descending=True)[:count]
    return {name: value[order] for name, value in detected.items()}


def _above(detected: Sample, score: float) -> dict[str, Tensor]:
    kept = detected["scores"] >= score
    return {name: value[kept] for name, value in detected.items()}


def _on_cpu(sample: Sample) -> dict[str, Tensor]:
    return {name: value.cpu() for name, value in sample.items()}
