"""Residual networks with activations before the convolutions, for images of about 32x32 pixels.

He, Zhang, Ren, Sun, "Identity mappings in deep residual networks", arXiv:1603.05027. State dict keys are those of
kuangliu/pytorch-cifar, where no normalisation follows the last block.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from functools import partial
from typing import Annotated, Any

from torch import Tensor, nn

from worker.distillation.contract import InputContract
from worker.distillation.networks.family import Network, WeightShapes
from worker.distillation.networks.residual import group, initialise
from worker.distillation.networks.resnet_small_images import BLOCKS
from worker.distillation.parameters import Range


class Block(nn.Module):
    """Two 3x3 convolutions after batch normalisation and ReLU, and a shortcut that reads the first activation."""

    def __init__(self, channels_in: int, channels_out: int, stride: int):
        super().__init__()
        self.bn1 = nn.BatchNorm2d(channels_in)
        self.relu1 = nn.ReLU()
        self.conv1 = nn.Conv2d(channels_in, channels_out, 3, stride, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(channels_out)
        self.relu2 = nn.ReLU()
        self.conv2 = nn.Conv2d(channels_out, channels_out, 3, padding=1, bias=False)
        plain = stride == 1 and channels_in == channels_out
        self.shortcut = None if plain else nn.Sequential(nn.Conv2d(channels_in, channels_out, 1, stride, bias=False))

    def forward(self, x: Tensor) -> Tensor:
        active = self.relu1(self.bn1(x))
        shortcut = x if self.shortcut is None else self.shortcut(active)
        return self.conv2(self.relu2(self.bn2(self.conv1(active)))) + shortcut


class PreActResNet(nn.Module):
    """A 3x3 convolution, four groups of blocks and a linear layer: x (B, C, H, W) -> logits (B, K)."""

    def __init__(self, depth: int, width: int, classes: int, contract: InputContract):
        super().__init__()
        self.conv1 = nn.Conv2d(contract.channels, width, 3, padding=1, bias=False)
        first, second, third, fourth = BLOCKS[depth]
        self.layer1 = group(Block, width, width, first, stride=1)
        self.layer2 = group(Block, width, 2 * width, second, stride=2)
        self.layer3 = group(Block, 2 * width, 4 * width, third, stride=2)
        self.layer4 = group(Block, 4 * width, 8 * width, fourth, stride=2)
        self.avgpool = nn.AdaptiveAvgPool2d(1)
        self.linear = nn.Linear(8 * width, classes)
        initialise(self)

    def forward(self, x: Tensor) -> Tensor:
        x = self.layer4(self.layer3(self.layer2(self.layer1(self.conv1(x)))))
        return self.linear(self.avgpool(x).flatten(1))


@dataclass(frozen=True)
class Options:
    """Width of a residual network."""

    width: Annotated[int, Range(ge=1, le=1024), "Channels of the first group; the last has eight times as many."] = 64


def build(depth: int, classes: int, contract: InputContract, options: Options) -> PreActResNet:
    return PreActResNet(depth, options.width, classes, contract)


def guess(depth: int, shapes: WeightShapes) -> Iterable[dict[str, Any]]:
    """The width, where there are as many layers: with the first, the last and three shortcuts."""
    if len(shapes) == 2 * sum(BLOCKS[depth]) + 5:
        yield {"width": shapes[0][0]}


NETWORKS = {
    f"preact_resnet{depth}_cifar": Network(
        f"A residual network of {depth} layers with activations before the convolutions, for images of about 32x32 pixels.",
        partial(build, depth),
        "arXiv:1603.05027",
        Options,
        widths=("width",),
        guess=partial(guess, depth),
    )
    for depth in BLOCKS
}
