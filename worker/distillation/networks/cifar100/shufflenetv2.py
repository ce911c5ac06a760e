"""ShuffleNetV2 for images of about 32x32 pixels, with biases, and with all input channels inside the blocks that halve the resolution.

Ma, Zhang, Zheng, Sun, "ShuffleNet V2", arXiv:1807.11164. State dict keys are those of weiaicunzai/pytorch-cifar100.
"""

from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor, nn

from worker.distillation.contract import InputContract
from worker.distillation.networks.cifar.shufflenetv2 import (
    COUNTS,
    FIRST,
    GROUPS_BEGIN,
    LAYERS,
    Options,
    check_widths,
    shuffled,
)
from worker.distillation.networks.family import Network, WeightShapes


def _convolution(channels_in: int, channels_out: int) -> list[nn.Module]:
    return [nn.Conv2d(channels_in, channels_out, 1), nn.BatchNorm2d(channels_out), nn.ReLU()]


def _separable(channels_in: int, channels_out: int, stride: int) -> list[nn.Module]:
    """A 3x3 convolution of each channel, then a 1x1 convolution."""
    depthwise = nn.Conv2d(channels_in, channels_in, 3, stride, padding=1, groups=channels_in)
    return [depthwise, nn.BatchNorm2d(channels_in), *_convolution(channels_in, channels_out)]


class Unit(nn.Module):
    """Two branches, one of which is empty for the half of the channels that it keeps: (B, C, H, W) -> (B, C', H', W')."""

    def __init__(self, channels_in: int, channels_out: int, stride: int):
        super().__init__()
        self.halves = stride == 1 and channels_in == channels_out
        inner = channels_in // 2 if self.halves else channels_in
        half = channels_out // 2
        self.residual = nn.Sequential(*_convolution(inner, inner), *_separable(inner, half, stride))
        self.shortcut = nn.Sequential(*(() if self.halves else _separable(channels_in, half, stride)))

    def forward(self, x: Tensor) -> Tensor:
        kept, changed = x.chunk(2, 1) if self.halves else (x, x)
        return shuffled(torch.cat((self.shortcut(kept), self.residual(changed)), 1))


class ShuffleNetV2(nn.Module):
    """A 3x3 convolution without ReLU, three groups that halve the resolution, a 1x1 convolution and a linear layer.

    x (B, C, H, W) -> logits (B, K).
    """

    def __init__(self, options: Options, classes: int, contract: InputContract):
        super().__init__()
        channels = FIRST
        self.pre = nn.Sequential(nn.Conv2d(contract.channels, channels, 3, padding=1), nn.BatchNorm2d(channels))
        for number, (width, count) in enumerate(zip(options.widths, COUNTS, strict=True), start=2):
            rest = (Unit(width, width, 1) for _ in range(count))
            self.add_module(f"stage{number}", nn.Sequential(Unit(channels, width, 2), *rest))
            channels = width
        self.conv5 = nn.Sequential(*_convolution(channels, options.features))
        self.avgpool = nn.AdaptiveAvgPool2d(1)
        self.fc = nn.Linear(options.features, classes)

    def forward(self, x: Tensor) -> Tensor:
        for name, layer in self.named_children():
            x = layer(x.flatten(1) if name == "fc" else x)
        return x


def build(classes: int, contract: InputContract, options: Options) -> ShuffleNetV2:
    check_widths(options)
    return ShuffleNetV2(options, classes, contract)


def guess(shapes: WeightShapes) -> Iterable[dict[str, Any]]:
    """The widths, which the first units' last convolutions have, and the last convolution's channels."""
    if len(shapes) == LAYERS:
        yield {"widths": [2 * shapes[place + 2][0] for place in GROUPS_BEGIN], "features": shapes[-1][1]}


NETWORKS = {
    "shufflenetv2_cifar100": Network(
        "ShuffleNetV2 for images of about 32x32 pixels, as in weiaicunzai/pytorch-cifar100.",
        build,
        "arXiv:1807.11164",
        Options,
        guess=guess,
    )
}
