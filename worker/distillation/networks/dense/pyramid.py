"""A feature pyramid: the features of an encoder at several resolutions, with as many channels at each.

Shapes: B batch, C channels, H height, W width.
"""

from collections.abc import Sequence

import torch.nn.functional as F
from torch import Tensor, nn


class FeaturePyramid(nn.Module):
    """Adds the coarser features, enlarged, to the finer ones, and smooths the sums by a convolution.

    Lin et al., "Feature pyramid networks for object detection", arXiv:1612.03144, section 3. Batch normalisation and ReLU after the
    convolutions are ours. Reads features (B, C_i, H_i, W_i), finest first; returns as many maps (B, `channels`, H_i, W_i).
    """

    def __init__(self, inputs: Sequence[int], channels: int):
        super().__init__()
        self.lateral = nn.ModuleList(nn.Conv2d(each, channels, 1) for each in inputs)
        self.output = nn.ModuleList(smooth(channels, channels) for _ in inputs)

    def forward(self, features: Sequence[Tensor]) -> list[Tensor]:
        sums: list[Tensor] = []
        for lateral, x in zip(reversed(list(self.lateral)), reversed(list(features)), strict=True):
            x = lateral(x)
            sums.append(x + F.interpolate(sums[-1], size=x.shape[2:], mode="nearest") if sums else x)
        return [output(x) for output, x in zip(self.output, reversed(sums), strict=True)]


def smooth(inputs: int, outputs: int, stride: int = 1) -> nn.Sequential:
    """A 3x3 convolution, batch normalisation and ReLU."""
    return nn.Sequential(
        nn.Conv2d(inputs, outputs, 3, stride=stride, padding=1, bias=False), nn.BatchNorm2d(outputs), nn.ReLU()
    )
