"""Residual networks of 18 and 34 layers for images of about 32x32 pixels.

He, Zhang, Ren, Sun, "Deep residual learning for image recognition", arXiv:1512.03385, table 1, with a 3x3 convolution instead
of the 7x7 convolution and pooling for 224 pixels. DAFL (arXiv:1904.01186) and the public benchmarks after it (zju-vipa/CMI)
distil the 34 layers into the 18 on CIFAR; state dict keys are the same as there.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from functools import partial
from typing import Annotated, Any

from torch import Tensor, nn

from worker.distillation.contract import InputContract
from worker.distillation.networks.family import Network, WeightShapes
from worker.distillation.networks.residual import BasicBlock, group, initialise
from worker.distillation.parameters import Range

BLOCKS = {18: (2, 2, 2, 2), 34: (3, 4, 6, 3)}
"""Number of blocks in each group, by depth."""


class Block(BasicBlock):
    """A basic block with the state dict keys of these networks."""

    shortcut_name = "shortcut"


class ResNet(nn.Module):
    """A 3x3 convolution, four groups of blocks and a linear layer; each group after the first halves the resolution and
    doubles the width.

    x (B, C, H, W) -> logits (B, K).
    """

    def __init__(self, depth: int, width: int, classes: int, contract: InputContract):
        super().__init__()
        self.conv1 = nn.Conv2d(contract.channels, width, 3, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        self.relu = nn.ReLU()
        first, second, third, fourth = BLOCKS[depth]
        self.layer1 = group(Block, width, width, first, stride=1)
        self.layer2 = group(Block, width, 2 * width, second, stride=2)
        self.layer3 = group(Block, 2 * width, 4 * width, third, stride=2)
        self.layer4 = group(Block, 4 * width, 8 * width, fourth, stride=2)
        self.avgpool = nn.AdaptiveAvgPool2d(1)
        self.linear = nn.Linear(8 * width, classes)
        initialise(self)

    def forward(self, x: Tensor) -> Tensor:
        x = self.relu(self.bn1(self.conv1(x)))
        x = self.layer4(self.layer3(self.layer2(self.layer1(x))))
        return self.linear(self.avgpool(x).flatten(1))


@dataclass(frozen=True)
class Options:
    """Width of a residual network."""

    width: Annotated[int, Range(ge=1, le=1024), "Channels of the first group; the last has eight times as many."] = 64


def build(depth: int, classes: int, contract: InputContract, options: Options) -> ResNet:
    return ResNet(depth, options.width, classes, contract)


def guess(shapes: WeightShapes) -> Iterable[dict[str, Any]]:
    """The width, which the first convolution has."""
    if len(shapes) in (21, 37):
        yield {"width": shapes[0][0]}


NETWORKS = {
    f"resnet{depth}_cifar": Network(
        f"A residual network of {depth} layers in four groups, as for ImageNet, for images of about 32x32 pixels.",
        partial(build, depth),
        "arXiv:1512.03385",
        Options,
        widths=("width",),
        guess=guess,
    )
    for depth in BLOCKS
}
