"""Detectors as ONNX graphs, one image at a time, with their detections or, if these cannot be converted, with the raw outputs of
their heads.

Shapes: C channels, H height, W width, N detections, A anchors, K classes of objects.
"""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from worker.distillation.compression.plain import plain
from worker.distillation.contract import InputContract
from worker.distillation.data.fields import is_box
from worker.distillation.export.card import Card
from worker.distillation.export.onnx import HINT, ExportFailed, run, write_unchecked
from worker.distillation.export.portable import portable, random_images
from worker.distillation.networks.detectors.detector import Detector, unpadded
from worker.distillation.networks.detectors.one_stage import OneStageDetector
from worker.distillation.task import Task
from worker.distillation.tasks.detected_boxes import agreement

COMPARED_IMAGES = 32
LEAST_AGREEMENT = 0.99
"""Least F1 of the file's and the student's detections of real images."""


def write(student: nn.Module, card: Card, path: Path) -> Mapping[str, Any]:
    """Write the graph of a detector: input `image` (1, C, H, W), output `detections` (1, N, 6), or `heads` (see `Heads`).

    Detections are compared as sets, by class and box, since their order depends on rounding; on real images, if the card has some.
    Returns the version of ONNX's operators, `opset`, the name of the `output`, and `agreement` on so many `images`.

    Raises:
        ExportFailed: the network cannot be converted, or the file computes something else.
    """
    network = plain(portable(student))
    assert isinstance(network, Detector)
    try:
        return _write_detections(network, card, path)
    except ExportFailed:
        if not isinstance(network, OneStageDetector):
            raise
        return _write_heads(network, card, path)


def _write_detections(network: Detector, card: Card, path: Path) -> dict[str, Any]:
    form = Detections(network)
    with convertible(max(card.contract.height, card.contract.width) + 1.0):
        opset = write_unchecked(form, card, path, one_image=True)
    images = _images(card)
    given = [_boxes(run(path, each[None])) for each in images]
    expected = [_boxes(_output(form, each[None])) for each in images]
    found = agreement(given, expected, score=0.0)
    if found < LEAST_AGREEMENT:  # NaN, without any detections, passes
        raise ExportFailed(f"the ONNX file and the student agree on {found:.1%} of their detections only", HINT)
    return {"opset": opset, "output": card.output, "images": len(images), "agreement": found}


def _write_heads(network: OneStageDetector, card: Card, path: Path) -> dict[str, Any]:
    form = Heads(network, card.contract).eval()
    opset = write_unchecked(form, replace(card, output="heads"), path, one_image=True)
    for each in _images(card):
        if wrong := Task().compare_export(_output(form, each[None]), run(path, each[None])):
            raise ExportFailed(f"the ONNX file's outputs {wrong}", HINT)
    return {"opset": opset, "output": "heads"}


def _boxes(detections_1N6: Tensor) -> dict[str, Tensor]:
    """The detections of an image whose boxes have an area; others overlap with nothing, so that they cannot be compared."""
    (found,) = unpadded(detections_1N6)
    kept = is_box(found["boxes"])
    return {name: value[kept] for name, value in found.items()}


def _images(card: Card) -> Tensor:
    return random_images(card.contract, 3) if card.sample is None else card.sample[:COMPARED_IMAGES].cpu().float()


def _output(network: nn.Module, image: Tensor) -> Tensor:
    with torch.no_grad():
        return network(image)


class Detections(nn.Module):
    """The detections (1, N, 6) of one image (1, C, H, W): x1, y1, x2, y2 in pixels, score, and class from 0."""

    def __init__(self, detector: Detector):
        super().__init__()
        self.detector = detector

    def forward(self, image: Tensor) -> Tensor:
        (found,) = self.detector.detected(image)
        numbers = [found["scores"], found["labels"].to(found["scores"].dtype) - 1]
        return torch.cat([found["boxes"], torch.stack(numbers, dim=1)], dim=1)[None]


@contextmanager
def convertible(offset: float) -> Iterator[None]:
    """A context in which torchvision suppresses the boxes of all classes in one call: each class is moved by an `offset` that is larger
    than the image, so that boxes of two classes never overlap. Its own way chooses by the number of boxes, which a graph cannot."""

    def batched_nms(boxes: Tensor, scores: Tensor, idxs: Tensor, iou_threshold: float) -> Tensor:
        return nms(boxes + (idxs.to(boxes.dtype) * offset)[:, None], scores, iou_threshold)

    from torchvision.ops import boxes as box_operations
    from torchvision.ops import nms

    before = box_operations.batched_nms
    box_operations.batched_nms = batched_nms
    try:
        yield
    finally:
        box_operations.batched_nms = before


class Heads(nn.Module):
    """The raw outputs of a detector of one stage for one image (1, C, H, W), where its detections cannot be converted.

    (1, A, 4 + 4 + K + 1): the anchor's corners in pixels, the offsets, and the logits. To decode: FCOS' offsets are distances of the
    sides from the anchor's centre, in sizes of the anchor; those of RetinaNet and SSD move the centre in sizes of the anchor and
    scale width and height by their exponential, after division by 10, 10, 5, 5 for SSD. Then the boxes of each class suppress each
    other.
    """

    def __init__(self, detector: OneStageDetector, contract: InputContract):
        super().__init__()
        self.detector = detector
        (anchors,) = detector.anchors(torch.zeros(1, contract.channels, contract.height, contract.width))
        self.register_buffer("anchors", anchors)

    def forward(self, image: Tensor) -> Tensor:
        outputs = self.detector.read(image, None)
        return torch.cat([self.get_buffer("anchors")[None], outputs.parts["deltas"], outputs.logits], dim=2)
