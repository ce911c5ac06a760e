"""DenseNets for images of about 32x32 pixels.

Huang, Liu, van der Maaten, Weinberger, "Densely connected convolutional networks", arXiv:1608.06993, with bottlenecks and
compression by half (DenseNet-BC) and a 3x3 convolution instead of the first layers for 224 pixels. State dict keys are those of
kuangliu/pytorch-cifar.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from itertools import accumulate
from typing import Annotated, Any

import torch
from torch import Tensor, nn

from worker.distillation.contract import InputContract
from worker.distillation.networks.family import Network, WeightShapes
from worker.distillation.parameters import Items, Range

BOTTLENECK = 4
"""Channels of the 1x1 convolution of a layer, as a multiple of the growth."""


class Layer(nn.Module):
    """A 1x1 and a 3x3 convolution, whose output is put before the input: (B, C, H, W) -> (B, growth + C, H, W)."""

    def __init__(self, channels: int, growth: int):
        super().__init__()
        self.bn1 = nn.BatchNorm2d(channels)
        self.relu1 = nn.ReLU()
        self.conv1 = nn.Conv2d(channels, BOTTLENECK * growth, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(BOTTLENECK * growth)
        self.relu2 = nn.ReLU()
        self.conv2 = nn.Conv2d(BOTTLENECK * growth, growth, 3, padding=1, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        y = self.conv1(self.relu1(self.bn1(x)))
        return torch.cat((self.conv2(self.relu2(self.bn2(y))), x), 1)


def transition(channels: int) -> nn.Sequential:
    """Half of the channels at half of the resolution: (B, C, H, W) -> (B, C / 2, H / 2, W / 2)."""
    layers = nn.Sequential()
    layers.add_module("bn", nn.BatchNorm2d(channels))
    layers.add_module("relu", nn.ReLU())
    layers.add_module("conv", nn.Conv2d(channels, channels // 2, 1, bias=False))
    layers.add_module("pool", nn.AvgPool2d(2))
    return layers


@dataclass(frozen=True)
class Options:
    """Depth and growth of a DenseNet."""

    blocks: Annotated[
        tuple[Annotated[int, Range(ge=1, le=128)], ...],
        Items(least=2, most=6),
        "Layers in each dense block. DenseNet-121 has 6, 12, 24, 16; 169 has 6, 12, 32, 32; 201 has 6, 12, 48, 32; 161 has 6,"
        " 12, 36, 24.",
    ] = (6, 12, 24, 16)
    growth: Annotated[
        int, Range(ge=1, le=512), "Channels that each layer adds: 32 in the paper's networks, 48 in DenseNet-161."
    ] = 12


class DenseNet(nn.Module):
    """A 3x3 convolution, dense blocks with transitions between them, and a linear layer: (B, C, H, W) -> (B, K)."""

    def __init__(self, options: Options, classes: int, contract: InputContract):
        super().__init__()
        growth, channels = options.growth, 2 * options.growth
        self.conv1 = nn.Conv2d(contract.channels, channels, 3, padding=1, bias=False)
        for number, count in enumerate(options.blocks, start=1):
            widths = list(accumulate([growth] * count, initial=channels))
            self.add_module(f"dense{number}", nn.Sequential(*(Layer(width, growth) for width in widths[:-1])))
            channels = widths[-1]
            if number < len(options.blocks):
                self.add_module(f"trans{number}", transition(channels))
                channels //= 2
        self.bn = nn.BatchNorm2d(channels)
        self.relu = nn.ReLU()
        self.avgpool = nn.AdaptiveAvgPool2d(1)
        self.linear = nn.Linear(channels, classes)

    def forward(self, x: Tensor) -> Tensor:
        for name, layer in self.named_children():
            x = layer(x.flatten(1) if name == "linear" else x)
        return x


def build(classes: int, contract: InputContract, options: Options) -> DenseNet:
    return DenseNet(options, classes, contract)


def guess(shapes: WeightShapes) -> Iterable[dict[str, Any]]:
    """The growth, and the layers of each block: pairs of a 1x1 and a 3x3 convolution, with a lone 1x1 between blocks."""
    kernels = [shape[2] if len(shape) == 4 else 0 for shape in shapes]
    words = "".join(map(str, kernels[1:-1])).split("11")
    if kernels[:1] != [3] or kernels[-1:] != [0] or not set(kernels[1:-1]) <= {1, 3} or not words[0]:
        return
    # blocks are `1313`, and a lone 1 stands between two of them, so that `11` divides: its first 1 is the transition
    blocks = [words[0], *("1" + word for word in words[1:])]
    if all(block == "13" * (len(block) // 2) for block in blocks):
        yield {"blocks": [len(block) // 2 for block in blocks], "growth": shapes[0][0] // 2}


NETWORKS = {
    "densenet_cifar": Network(
        "A DenseNet for images of about 32x32 pixels, by default of 121 layers with a growth of 12.",
        build,
        "arXiv:1608.06993",
        Options,
        guess=guess,
    )
}
