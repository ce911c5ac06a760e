"""Detectors as ONNX graphs, one image at a time, with their detections or, if these cannot be converted, with the raw outputs of
their heads.

Shapes: C channels, H height, W width, N detections, A anchors, K classes of objects.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from worker.distillation.networks.detectors.detector import Detector

BATCH = 1
"""Images of a batch of these graphs: suppression works on the boxes of one image."""


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


def in_one_image(network: nn.Module) -> nn.Module | None:
    """What to convert in place of a detector; None for other networks."""
    return Detections(network) if isinstance(network, Detector) else None


def boxes_of(network: Any, image: Tensor) -> Tensor:
    """The detections (B, N, 6) of images that a network for one image reads one after the other, padded."""
    found = [network(each[None])[0] for each in image]
    most = max(len(each) for each in found)
    whole = image.new_zeros(len(found), most, 6)
    whole[..., 5] = -1
    for row, each in zip(whole, found, strict=True):
        row[: len(each)] = each
    return whole
