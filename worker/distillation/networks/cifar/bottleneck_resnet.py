"""Residual networks of 50, 101 and 152 layers for images of about 32x32 pixels.

He, Zhang, Ren, Sun, "Deep residual learning for image recognition", arXiv:1512.03385, table 1, with a 3x3 convolution instead
of the first layers for 224 pixels. State dict keys are those of kuangliu/pytorch-cifar.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from functools import partial
from typing import Annotated, Any

from torch import Tensor, nn

from worker.distillation.contract import InputContract
from worker.distillation.networks.family import Network, WeightShapes
from worker.distillation.networks.residual import initialise
from worker.distillation.parameters import Range

BLOCKS = {50: (3, 4, 6, 3), 101: (3, 4, 23, 3), 152: (3, 8, 36, 3)}
"""Number of blocks in each group, by depth."""
EXPANSION = 4


class Bottleneck(nn.Module):
    """Convolutions of 1x1, 3x3 and 1x1 pixels and a shortcut: (B, C_in, H, W) -> (B, 4 width, H / stride, W / stride)."""

    def __init__(self, channels_in: int, width: int, stride: int):
        super().__init__()
        channels_out = EXPANSION * width
        self.conv1 = nn.Conv2d(channels_in, width, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        self.conv2 = nn.Conv2d(width, width, 3, stride, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(width)
        self.conv3 = nn.Conv2d(width, channels_out, 1, bias=False)
        self.bn3 = nn.BatchNorm2d(channels_out)
        self.shortcut = nn.Sequential()
        if stride != 1 or channels_in != channels_out:
            self.shortcut.append(nn.Conv2d(channels_in, channels_out, 1, stride, bias=False))
            self.shortcut.append(nn.BatchNorm2d(channels_out))
        self.relu = nn.ReLU()

    def forward(self, x: Tensor) -> Tensor:
        y = self.relu(self.bn1(self.conv1(x)))
        y = self.bn3(self.conv3(self.relu(self.bn2(self.conv2(y)))))
        return self.relu(y + self.shortcut(x))


class ResNet(nn.Module):
    """A 3x3 convolution, four groups of blocks and a linear layer; each group after the first halves the resolution.

    x (B, C, H, W) -> logits (B, K).
    """

    def __init__(self, depth: int, width: int, classes: int, contract: InputContract):
        super().__init__()
        self.conv1 = nn.Conv2d(contract.channels, width, 3, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        self.relu = nn.ReLU()
        channels = width
        for number, count in enumerate(BLOCKS[depth]):
            blocks = nn.Sequential()
            for index in range(count):
                stride = 2 if number and not index else 1
                blocks.append(Bottleneck(channels, width * 2**number, stride))
                channels = EXPANSION * width * 2**number
            self.add_module(f"layer{number + 1}", blocks)
        self.avgpool = nn.AdaptiveAvgPool2d(1)
        self.linear = nn.Linear(channels, classes)
        initialise(self)

    def forward(self, x: Tensor) -> Tensor:
        x = self.relu(self.bn1(self.conv1(x)))
        for number in range(1, 5):
            x = self.get_submodule(f"layer{number}")(x)
        return self.linear(self.avgpool(x).flatten(1))


@dataclass(frozen=True)
class Options:
    """Width of a residual network."""

    width: Annotated[
        int, Range(ge=1, le=1024), "Channels of the first convolution; the last group has 32 times as many."
    ] = 64


def build(depth: int, classes: int, contract: InputContract, options: Options) -> ResNet:
    return ResNet(depth, options.width, classes, contract)


def guess(depth: int, shapes: WeightShapes) -> Iterable[dict[str, Any]]:
    """The width, where there are as many layers: with the first, the last and four shortcuts."""
    if len(shapes) == 3 * sum(BLOCKS[depth]) + 6:
        yield {"width": shapes[0][0]}


NETWORKS = {
    f"resnet{depth}_cifar": Network(
        f"A residual network of {depth} layers in four groups of bottlenecks, for images of about 32x32 pixels.",
        partial(build, depth),
        "arXiv:1512.03385",
        Options,
        widths=("width",),
        guess=partial(guess, depth),
    )
    for depth in BLOCKS
}
