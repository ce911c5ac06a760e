"""Detection: a box, a class and a score for each object of an image.

Shapes: B batch, N samples, D detections of an image, C channels, H height, W width.
"""

import math
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from worker.distillation.contract_check.comparison import Judgement
from worker.distillation.errors import Problem, SpecError
from worker.distillation.introspection.tracing import detections
from worker.distillation.networks.detectors.detector import unpadded
from worker.distillation.step import Outputs
from worker.distillation.task import FEWEST_JUDGED, Predict, Task, TeacherAssessment, answers, exceeds_chance
from worker.distillation.tasks.detected_boxes import AveragePrecision, agreement, found_objects, share_found, truth_of
from worker.distillation.tasks.pictures import rgb

if TYPE_CHECKING:
    from worker.distillation.data.images import Images

SHOWN = 0.5
"""Least score of a detection that is drawn."""
SAME_SHARE = 0.99
"""Least share of detections that a file and the student must have in common."""


class Detection(Task):
    """The objects of an image: a detector's output is a padded list of boxes, each with a score and a class."""

    labels = "boxes"
    field = "boxes"
    output = "detections"
    least_outputs = 1
    ground_truth = {"name": "detection_loss"}
    objective_defaults = (
        {"name": "detection_loss", "weight": 1.0, "classification": 0.5},
        {"name": "soft_detection", "weight": 0.5},
        {"name": "bounded_boxes", "weight": 0.5},
        {"name": "hint", "weight": 0.5},
        {"name": "roi_mimic", "weight": 1.0},
    )
    source_defaults = {"augmentation": "scale_crop_flip"}
    no_synthesis = "synthesised images hold no objects of a place and a size; use `substitute` with any real images"
    main_metric = "map"
    student_first = True

    def check_output(self, output: Any, examples: int) -> str | None:
        return detections(output, examples)

    def read(
        self,
        network: Callable[..., Outputs],
        image: Tensor,
        fields: Mapping[str, Tensor],
        shared: Outputs | None = None,
    ) -> Outputs:
        """The outputs for the regions that a network draws by the batch's boxes, or for those in `shared`. Boxes of crowds are left
        out. Labels of detectors count from 1: 0 is the background."""
        if shared is not None or "boxes" not in fields:
            return network(image, None, shared)
        truth = truth_of(fields, crowds=False)
        targets = [
            {"boxes": each["boxes"].to(image.device), "labels": each["labels"].to(image.device) + 1} for each in truth
        ]
        if "seed" in fields:
            targets = [target | {"seed": seed} for target, seed in zip(targets, fields["seed"].cpu(), strict=True)]
        return network(image, targets, None)

    def check_labels(self, images: "Images", outputs: int, pointer: str) -> None:
        if "boxes" not in images.fields:
            raise SpecError([Problem(pointer, "has no boxes")], "Choose another dataset or task.")
        largest = int(images.fields["box_label"].max()) if images.fields["box_label"].numel() else -1
        classes = max(images.classes, largest + 1)
        if classes != outputs:
            message = (
                f"has boxes of {classes} classes, but the student detects {outputs}; the background does not count"
            )
            raise SpecError(
                [Problem(pointer, message)], "Choose a dataset of the same classes, or set student/classes."
            )

    def evaluate(
        self, network_fn: Predict, images: "Images", batch_size: int, teacher_fn: Predict | None = None
    ) -> dict[str, float]:
        """The metrics of detection.

        `map`, `map50`, `map75`, `recall`, `map_small`, `map_medium`, `map_large` and `map/NAME` are COCO's, with crowds ignored as
        there (see `tasks/detected_boxes.py`); NaN where there is nothing to measure. With a teacher `agreement`: F1 of the detections
        of both with a score of at least 0.5, where two are the same if their class is, and their IoU is at least 0.5.
        """
        precision = AveragePrecision(images.fields["boxes"].shape[1])
        mine: list[dict[str, Tensor]] = []
        theirs: list[dict[str, Tensor]] = []
        for part, given, teacher in answers(network_fn, images, batch_size, teacher_fn):
            found = unpadded(given.logits)
            precision.add(found, truth_of({name: value[part] for name, value in images.fields.items()}))
            if teacher is not None:
                mine += found
                theirs += unpadded(teacher.logits)
        metrics = precision.values(images.class_names)
        return metrics | ({"agreement": agreement(mine, theirs)} if teacher_fn is not None else {})

    def assess_teacher(self, teacher_fn: Predict, images: "Images", batch_size: int) -> TeacherAssessment:
        """Assesses the share of objects that are among as many best detections, against that with the images shuffled."""
        found = [each for _, given, _ in answers(teacher_fn, images, batch_size) for each in unpadded(given.logits)]
        objects = truth_of(images.fields, crowds=False)
        value = share_found(found, objects)
        words = f"{value:.1%} of the objects are among as many best detections of their image, on {len(images)} images"

        def shuffled(order: Tensor) -> float:
            return share_found(found, [objects[int(place)] for place in order])

        return TeacherAssessment(words, not exceeds_chance(value, shuffled, len(images)))

    def judgement(self, fields: Mapping[str, Tensor]) -> Judgement:
        """Judges the share of an image's objects that are among as many of its best detections."""

        def judge(detections_BD6: Tensor, part: slice) -> Tensor:
            objects = truth_of({name: value[part] for name, value in fields.items()}, crowds=False)
            found = unpadded(detections_BD6)
            return torch.tensor([share_found([one], [other]) for one, other in zip(found, objects, strict=True)])

        words = "finds {score} of an image's objects with as many of its best detections, on {count} training images"
        return Judgement(judge, lambda count: 0.0, words, "{score}", "found", FEWEST_JUDGED)

    def by_class(self, network_fn: Predict, images: "Images", batch_size: int) -> dict[str, Any] | None:
        """`images` and `objects` with each class, and its `average_precision` over IoU from 0.5 to 0.95 (null without objects)."""
        metrics = self.evaluate(network_fn, images, batch_size)
        label = images.fields["box_label"]
        each = range(len(images.class_names))
        return {
            "images": [int((label == number).any(1).sum()) for number in each],
            "objects": [int((label == number).sum()) for number in each],
            "average_precision": [_or_none(metrics[f"map/{name}"]) for name in images.class_names],
        }

    def compare_export(self, expected: Any, given: Any) -> str | None:
        """Compares detections as sets, by class and box: their order depends on rounding."""
        pairs = list(zip(unpadded(expected), unpadded(given), strict=True))
        count = sum(len(mine["boxes"]) + len(theirs["boxes"]) for mine, theirs in pairs)
        same = sum(2 * int(found_objects(mine, theirs).sum()) for mine, theirs in pairs)
        if not count or same / count >= SAME_SHARE:
            return None
        return f"have {same / count:.1%} of the detections in common with the student's, less than {SAME_SHARE:.0%}"

    def picture(self, image: Tensor, output: Outputs | None, truth: Mapping[str, Tensor]) -> Tensor | None:
        """The image with a frame for each detection of a score of at least 0.5, or for each true box if `output` is None; the class
        chooses the colour."""
        if output is None:
            (shown,) = truth_of({name: value[None] for name, value in truth.items()})
        else:
            (found,) = unpadded(output.logits)
            shown = {name: value[found["scores"] >= SHOWN] for name, value in found.items()}
        return framed(image, shown["boxes"], shown["labels"])


def _or_none(value: float) -> float | None:
    return None if math.isnan(value) else value


COLOURS = ((230, 60, 50), (60, 180, 75), (255, 210, 30), (0, 130, 200), (245, 130, 48), (145, 30, 180), (70, 240, 240))
"""Colours of classes, which repeat."""


def framed(image_CHW: Tensor, boxes_D4: Tensor, labels_D: Tensor) -> Tensor:
    """An image (3, H, W) uint8 with the outline of each box, one pixel wide."""
    shown = rgb(image_CHW).clone()
    height, width = shown.shape[1:]
    limits = torch.tensor([width - 1, height - 1, width - 1, height - 1])
    places = torch.minimum(boxes_D4.cpu().round().clamp(min=0).long(), limits)
    for (x1, y1, x2, y2), label in zip(places.tolist(), labels_D.tolist(), strict=True):
        colour = torch.tensor(COLOURS[label % len(COLOURS)], dtype=torch.uint8)[:, None]
        shown[:, [y1, y2], x1 : x2 + 1] = colour[:, :, None]
        shown[:, y1 : y2 + 1, [x1, x2]] = colour[:, :, None]
    return shown
