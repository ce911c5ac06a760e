"""ShuffleNetV2 for images of about 32x32 pixels.

Ma, Zhang, Zheng, Sun, "ShuffleNet V2", arXiv:1807.11164, with a first convolution of stride 1 and no pooling after it. State dict
keys are those of kuangliu/pytorch-cifar. Its network of size 2 has 224 channels in the first group, where the paper has 244.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Annotated, Any

import torch
from torch import Tensor, nn

from worker.distillation.contract import InputContract
from worker.distillation.errors import Problem, SpecError
from worker.distillation.networks.family import Network, WeightShapes
from worker.distillation.parameters import Items, Range

FIRST = 24
"""Channels of the first convolution."""
COUNTS = (3, 7, 3)
"""Blocks in each group after the one that halves the resolution."""
LAYERS = 57
"""Convolutions and linear layers."""
GROUPS_BEGIN = (1, 15, 41)
"""Places of the groups among them."""


def shuffled(x: Tensor) -> Tensor:
    """The channels of the first and second half in turn: (B, 2 C, H, W) -> (B, 2 C, H, W)."""
    return x.unflatten(1, (2, -1)).transpose(1, 2).flatten(1, 2)


class Block(nn.Module):
    """Half of the channels pass three convolutions, the others nothing: (B, C, H, W) -> (B, C, H, W)."""

    def __init__(self, channels: int):
        super().__init__()
        half = channels // 2
        self.conv1 = nn.Conv2d(half, half, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(half)
        self.conv2 = nn.Conv2d(half, half, 3, padding=1, groups=half, bias=False)
        self.bn2 = nn.BatchNorm2d(half)
        self.conv3 = nn.Conv2d(half, half, 1, bias=False)
        self.bn3 = nn.BatchNorm2d(half)
        self.relu = nn.ReLU()

    def forward(self, x: Tensor) -> Tensor:
        kept, y = x.chunk(2, 1)
        y = self.bn2(self.conv2(self.relu(self.bn1(self.conv1(y)))))
        return shuffled(torch.cat((kept, self.relu(self.bn3(self.conv3(y)))), 1))


class DownBlock(nn.Module):
    """All channels pass both branches, which halve the resolution: (B, C_in, H, W) -> (B, C_out, H / 2, W / 2)."""

    def __init__(self, channels_in: int, channels_out: int):
        super().__init__()
        half = channels_out // 2
        self.conv1 = nn.Conv2d(channels_in, channels_in, 3, 2, padding=1, groups=channels_in, bias=False)
        self.bn1 = nn.BatchNorm2d(channels_in)
        self.conv2 = nn.Conv2d(channels_in, half, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(half)
        self.conv3 = nn.Conv2d(channels_in, half, 1, bias=False)
        self.bn3 = nn.BatchNorm2d(half)
        self.conv4 = nn.Conv2d(half, half, 3, 2, padding=1, groups=half, bias=False)
        self.bn4 = nn.BatchNorm2d(half)
        self.conv5 = nn.Conv2d(half, half, 1, bias=False)
        self.bn5 = nn.BatchNorm2d(half)
        self.relu = nn.ReLU()

    def forward(self, x: Tensor) -> Tensor:
        left = self.relu(self.bn2(self.conv2(self.bn1(self.conv1(x)))))
        right = self.bn4(self.conv4(self.relu(self.bn3(self.conv3(x)))))
        return shuffled(torch.cat((left, self.relu(self.bn5(self.conv5(right)))), 1))


@dataclass(frozen=True)
class Options:
    """Widths of a ShuffleNetV2."""

    widths: Annotated[
        tuple[Annotated[int, Range(ge=2, le=4096)], ...],
        Items(least=3, most=3),
        "Channels of the three groups, even numbers. The paper's sizes are 48, 96, 192 (0.5x); 116, 232, 464 (1x);"
        " 176, 352, 704 (1.5x); 244, 488, 976 (2x).",
    ] = (116, 232, 464)
    features: Annotated[
        int, Range(ge=1, le=65536), "Channels of the last convolution; 2048 in the paper's size 2x."
    ] = 1024


class ShuffleNetV2(nn.Module):
    """A 3x3 convolution, three groups that halve the resolution, a 1x1 convolution and a linear layer: (B, C, H, W) -> (B, K)."""

    def __init__(self, options: Options, classes: int, contract: InputContract):
        super().__init__()
        self.conv1 = nn.Conv2d(contract.channels, FIRST, 3, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(FIRST)
        self.relu1 = nn.ReLU()
        channels = FIRST
        for number, (width, count) in enumerate(zip(options.widths, COUNTS, strict=True), start=1):
            blocks = (Block(width) for _ in range(count))
            self.add_module(f"layer{number}", nn.Sequential(DownBlock(channels, width), *blocks))
            channels = width
        self.conv2 = nn.Conv2d(channels, options.features, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(options.features)
        self.relu2 = nn.ReLU()
        self.avgpool = nn.AdaptiveAvgPool2d(1)
        self.linear = nn.Linear(options.features, classes)

    def forward(self, x: Tensor) -> Tensor:
        for name, layer in self.named_children():
            x = layer(x.flatten(1) if name == "linear" else x)
        return x


def build(classes: int, contract: InputContract, options: Options) -> ShuffleNetV2:
    check_widths(options)
    return ShuffleNetV2(options, classes, contract)


def check_widths(options: Options) -> None:
    """Check that each width has two halves.

    Raises:
        SpecError: one has not.
    """
    if any(width % 2 for width in options.widths):
        raise SpecError([Problem("/options/widths", f"must be even numbers, not {list(options.widths)}")])


def guess(shapes: WeightShapes) -> Iterable[dict[str, Any]]:
    """The widths, which the first blocks' convolutions have, and the last convolution's channels."""
    if len(shapes) == LAYERS:
        yield {"widths": [2 * shapes[place + 1][0] for place in GROUPS_BEGIN], "features": shapes[-1][1]}


NETWORKS = {
    "shufflenetv2_cifar": Network(
        "ShuffleNetV2 for images of about 32x32 pixels, by default of the paper's size 1x.",
        build,
        "arXiv:1807.11164",
        Options,
        guess=guess,
    )
}
