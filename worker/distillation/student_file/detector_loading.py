"""The classes of a detector's `student.py`: detection alone, with torchvision's parts. They use nothing of this project."""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from worker.distillation.student_file.loading import Module


class TwoStages(Module):
    """A detector of two stages: images (batch, channels, height, width) -> detections (batch, most, 6)."""

    backbone: nn.Module
    rpn: nn.Module
    roi_heads: nn.Module
    divisible: int
    most: int

    def forward(self, images: Tensor) -> Tensor:
        padded = padded_images(images, self.divisible)
        features = self.backbone(padded.tensors)
        proposals, _ = self.rpn(padded, features)
        found, _ = self.roi_heads(features, proposals, padded.image_sizes)
        return detections(found, self.most)


class OneStage(Module):
    """A detector of one stage: images (batch, channels, height, width) -> detections (batch, most, 6)."""

    backbone: nn.Module
    head: nn.Module
    whole: tuple[Any]
    """torchvision's network, which makes anchors and chooses detections; in a tuple, so that it is no part of this module."""
    divisible: int
    most: int

    def forward(self, images: Tensor) -> Tensor:
        (whole,) = self.whole
        padded = padded_images(images, self.divisible)
        features = list(self.backbone(padded.tensors).values())
        given = self.head(features)
        places = [each.shape[-2] * each.shape[-1] for each in features]
        counts = [place * (given["cls_logits"].shape[1] // sum(places)) for place in places]
        split = {name: list(each.split(counts, dim=1)) for name, each in given.items()}
        anchors = [list(each.split(counts)) for each in whole.anchor_generator(padded, features)]
        return detections(whole.postprocess_detections(split, anchors, padded.image_sizes), self.most)


def padded_images(images: Tensor, divisible: int) -> Any:
    """The images, padded with zeros to multiples of so many pixels, as torchvision's parts read them."""
    from torchvision.models.detection.image_list import ImageList

    height, width = images.shape[-2:]
    tensors = F.pad(images, (0, -width % divisible, 0, -height % divisible))
    return ImageList(tensors, [(height, width)] * len(images))


def detections(found: Sequence[Mapping[str, Tensor]], most: int) -> Tensor:
    """For each image x1, y1, x2, y2, score and class from 0 of at most `most` objects; the rest are zeros with the class -1."""
    rows = []
    for each in found:
        columns = [each["boxes"], each["scores"][:, None], each["labels"][:, None] - 1.0]
        own = torch.cat(columns, dim=1)[:most]
        rows.append(torch.cat([own, own.new_tensor([0.0, 0, 0, 0, 0, -1]).expand(most - len(own), 6)]))
    return torch.stack(rows)
