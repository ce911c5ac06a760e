"""A small encoder with maps at strides of 4, 8 and 16 pixels, and a feature pyramid on such maps.

Lin et al., "Feature pyramid networks for object detection", arXiv:1612.03144, section 3; the encoder is a residual network
(He et al., arXiv:1512.03385) with few channels (ours).

Shapes: B batch, C channels, H height, W width.
"""

from collections.abc import Sequence
from typing import cast

import torch.nn.functional as F
from torch import Tensor, nn

from worker.distillation.networks.residual import BasicBlock

STRIDES = (4, 8, 16)
"""Strides in pixels of the encoder's maps."""


class Encoder(nn.Module):
    """Maps with `width`, 2 `width` and 4 `width` channels at strides of 4, 8 and 16 pixels, each by `depth` residual blocks."""

    def __init__(self, channels: int, width: int, depth: int = 1):
        super().__init__()
        self.channels = (width, 2 * width, 4 * width)
        self.stem = nn.Sequential(
            nn.Conv2d(channels, width, 3, stride=2, padding=1, bias=False), nn.BatchNorm2d(width), nn.ReLU()
        )
        self.stage4 = _stage(width, width, depth)
        self.stage8 = _stage(width, 2 * width, depth)
        self.stage16 = _stage(2 * width, 4 * width, depth)

    def forward(self, image_BCHW: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        at4 = self.stage4(self.stem(image_BCHW))
        at8 = self.stage8(at4)
        return at4, at8, self.stage16(at8)


def _stage(channels: int, out: int, depth: int) -> nn.Sequential:
    """Residual blocks, of which the first halves the size."""
    return nn.Sequential(BasicBlock(channels, out, 2), *(BasicBlock(out, out, 1) for _ in range(depth - 1)))


class Pyramid(nn.Module):
    """Maps of `features` channels at the resolutions of the given maps, each with the context of the coarser ones.

    A 1x1 convolution makes the channels equal; the coarser map is enlarged to the nearest pixel and added; a 3x3 convolution
    smooths each sum. There is no activation after it.
    """

    def __init__(self, channels: Sequence[int], features: int):
        super().__init__()
        self.inner = nn.ModuleList(nn.Conv2d(each, features, 1) for each in channels)
        self.layers = nn.ModuleList(nn.Conv2d(features, features, 3, padding=1) for _ in channels)

    def forward(self, maps: Sequence[Tensor]) -> list[Tensor]:
        """The smoothed maps, in the order of `maps` (large to small)."""
        inner, layers = list(self.inner), list(self.layers)
        above = cast(Tensor, inner[-1](maps[-1]))
        found = [layers[-1](above)]
        for level in range(len(maps) - 2, -1, -1):
            own = inner[level](maps[level])
            above = own + F.interpolate(above, size=own.shape[-2:], mode="nearest")
            found.insert(0, layers[level](above))
        return found
