"""Wide residual networks for images of about 32x32 pixels.

Zagoruyko, Komodakis, "Wide residual networks", arXiv:1605.07146: batch normalisation and ReLU precede each convolution, and
no ReLU follows the addition. State dict keys are those of the public benchmark HobbitLong/RepDistiller.
"""

from collections import OrderedDict
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Annotated, Any

from torch import Tensor, nn

from worker.distillation.contract import InputContract
from worker.distillation.networks.family import Network, WeightShapes
from worker.distillation.networks.residual import blocks_per_group, group, initialise
from worker.distillation.parameters import Range

STEM = 16


class PreActivationBlock(nn.Module):
    """Two 3x3 convolutions with batch normalisation, and a shortcut: (B, C_in, H, W) -> (B, C_out, H / stride, W / stride).

    A shortcut that changes shape is a 1x1 convolution with the same input as the first convolution.
    """

    def __init__(self, channels_in: int, channels_out: int, stride: int):
        super().__init__()
        self.bn1 = nn.BatchNorm2d(channels_in)
        self.relu1 = nn.ReLU()
        self.conv1 = nn.Conv2d(channels_in, channels_out, 3, stride, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(channels_out)
        self.relu2 = nn.ReLU()
        self.conv2 = nn.Conv2d(channels_out, channels_out, 3, padding=1, bias=False)
        plain = stride == 1 and channels_in == channels_out
        self.convShortcut = None if plain else nn.Conv2d(channels_in, channels_out, 1, stride, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        active = self.relu1(self.bn1(x))
        shortcut = x if self.convShortcut is None else self.convShortcut(active)
        return shortcut + self.conv2(self.relu2(self.bn2(self.conv1(active))))


class WideResNet(nn.Module):
    """A 3x3 convolution, three groups of `(depth - 4) / 6` blocks at full, half and quarter resolution, and a linear layer.

    x (B, C, H, W) -> logits (B, K). The groups have 16, 32 and 64 channels times `factor`.
    """

    def __init__(self, depth: int, factor: int, classes: int, contract: InputContract):
        super().__init__()
        blocks = blocks_per_group(depth, 4)
        widths = [STEM * factor * times for times in (1, 2, 4)]
        self.conv1 = nn.Conv2d(contract.channels, STEM, 3, padding=1, bias=False)
        self.block1 = _group(STEM, widths[0], blocks, stride=1)
        self.block2 = _group(widths[0], widths[1], blocks, stride=2)
        self.block3 = _group(widths[1], widths[2], blocks, stride=2)
        self.bn1 = nn.BatchNorm2d(widths[2])
        self.relu = nn.ReLU()
        self.avgpool = nn.AdaptiveAvgPool2d(1)
        self.fc = nn.Linear(widths[2], classes)
        initialise(self)

    def forward(self, x: Tensor) -> Tensor:
        x = self.block3(self.block2(self.block1(self.conv1(x))))
        return self.fc(self.avgpool(self.relu(self.bn1(x))).flatten(1))


def _group(channels_in: int, channels_out: int, blocks: int, stride: int) -> nn.Sequential:
    return nn.Sequential(OrderedDict(layer=group(PreActivationBlock, channels_in, channels_out, blocks, stride)))


@dataclass(frozen=True)
class Options:
    """Depth and width of a wide residual network."""

    depth: Annotated[int, Range(ge=10, le=1000), "Number of layers: 6 n + 4 for n blocks at each resolution."] = 16
    factor: Annotated[int, Range(ge=1, le=64), "Widening factor of the 16, 32 and 64 channels."] = 2


def build(classes: int, contract: InputContract, options: Options) -> WideResNet:
    return WideResNet(options.depth, options.factor, classes, contract)


def guess(shapes: WeightShapes) -> Iterable[dict[str, Any]]:
    """Depth and factor; convolutions of one pixel are shortcuts."""
    convolutions = [shape for shape in shapes if len(shape) == 4 and shape[2] == 3]
    if len(convolutions) > 6 and len(convolutions) % 6 == 1:
        yield {"depth": len(convolutions) + 3, "factor": max(1, convolutions[1][0] // STEM)}


NETWORKS = {
    "wrn_cifar": Network(
        "A wide residual network for images of about 32x32 pixels, of any depth and width; WRN-16-2 by default.",
        build,
        "arXiv:1605.07146",
        Options,
        guess=guess,
    )
}
