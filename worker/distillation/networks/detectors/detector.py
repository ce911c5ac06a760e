"""The protocol of detectors: what a network for boxes returns in training, and what it detects.

Shapes: B batch, H height, W width, D detections, M objects of an image, K classes of objects. Boxes are (x1, y1, x2, y2) in
pixels of the images that the network reads.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from worker.distillation.step import Outputs

DETECTION = 6
"""Numbers of a detection: x1, y1, x2, y2, score, class. Padding is zeros with the class -1."""
Target = Mapping[str, Tensor]
"""The objects of an image: `boxes` (M, 4) float32 and `labels` (M,) int64 from 1 to K; 0 is the background. A `seed` () int64, on the
CPU, makes what is drawn for the image independent of the others."""


@dataclass(frozen=True)
class PaddedImages:
    """Images (B, C, H', W'), padded, and the (height, width) of each before; torchvision's parts read it as their own list of images."""

    tensors: Tensor
    image_sizes: list[tuple[int, int]]


class Detector(nn.Module):
    """A network that detects objects of `classes` classes.

    `network(images)` detects; `network(images, targets, shared)` reads them for training. `divisible`: images are padded with
    zeros at the right and at the bottom to multiples of so many pixels.
    """

    classes: int
    most_detections: int
    divisible: int = 1
    stage_candidates: tuple[str, ...] | None = None
    """The modules whose maps objectives compare by default; None for the last map at each resolution."""
    followed_without_values = True
    """Whether `introspection/channel_following.py` follows the channels through `shapes`."""

    def forward(self, images_BCHW: Tensor, *reading: object) -> Tensor | Outputs:
        """`detect(images)`, or with further arguments `read(images, targets, shared)`."""
        if not reading:
            return self.shapes(images_BCHW) if images_BCHW.is_meta else self.detect(images_BCHW)
        return self.read(images_BCHW, *reading)  # type: ignore[arg-type]

    def detect(self, images_BCHW: Tensor) -> Tensor:
        """Detections (B, D, 6), those of the highest score first, padded."""
        return padded_detections(self.detected(images_BCHW), self.most_detections)

    def detected(self, images_BCHW: Tensor) -> list[dict[str, Tensor]]:
        """For each image `boxes` (D, 4), `scores` (D,) and `labels` (D,) from 1 to K."""
        raise NotImplementedError

    def read(self, images_BCHW: Tensor, targets: Sequence[Target] | None, shared: Outputs | None = None) -> Outputs:
        """Outputs in training.

        With `targets`, it draws what its losses are computed on. With the outputs of another network in `shared`, it computes its
        own for the same regions and draws nothing. Without both, for images without labels, it takes its best proposals.
        """
        raise NotImplementedError

    def shapes(self, images_BCHW: Tensor) -> Tensor:
        """Detections without values, for images on the meta device; every layer that computes features and heads runs."""
        self.read(images_BCHW, None)
        return images_BCHW.new_empty(len(images_BCHW), self.most_detections, DETECTION)

    def padded(self, images_BCHW: Tensor) -> PaddedImages:
        """The images, padded, with the sizes before."""
        height, width = images_BCHW.shape[-2:]
        more = (-width % self.divisible, -height % self.divisible)
        tensors = F.pad(images_BCHW, (0, more[0], 0, more[1])) if any(more) else images_BCHW
        return PaddedImages(tensors, [(height, width)] * len(images_BCHW))


def padded_detections(found: Sequence[Mapping[str, Tensor]], most: int) -> Tensor:
    """One tensor (B, `most`, 6) of the detections of several images, whose labels count from 1."""
    rows = [
        torch.cat([each["boxes"], each["scores"][:, None], each["labels"][:, None].to(each["boxes"].dtype) - 1], dim=1)
        for each in found
    ]
    return padded_rows(rows, most, nothing())


def nothing() -> Tensor:
    """The row that stands for no detection (6,)."""
    return torch.tensor([0.0, 0.0, 0.0, 0.0, 0.0, -1.0])


def padded_rows(rows: Sequence[Tensor], count: int, value: Tensor | float = 0.0) -> Tensor:
    """Stack tensors (n, ...) of different n, at most the first `count` rows of each, padded with `value` (B, `count`, ...)."""
    first = rows[0]
    fill = value.to(first) if isinstance(value, Tensor) else first.new_tensor(value)
    whole = fill.expand(len(rows), count, *first.shape[1:]).clone()
    for number, each in enumerate(rows):
        whole[number, : min(len(each), count)] = each[:count]
    return whole


def unpadded(detections_BD6: Tensor) -> list[dict[str, Tensor]]:
    """`boxes` (D, 4), `scores` (D,) and `labels` (D,) int64, counted from 0, of each image."""
    found = []
    for rows in detections_BD6:
        kept = rows[rows[:, 5] >= 0]
        found.append({"boxes": kept[:, :4], "scores": kept[:, 4], "labels": kept[:, 5].long()})
    return found
