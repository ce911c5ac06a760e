"""Residual networks for images of about 32x32 pixels, as in He et al. on CIFAR, and variants four times as wide.

He, Zhang, Ren, Sun, "Deep residual learning for image recognition", arXiv:1512.03385, section 4.2. As in the public
benchmark HobbitLong/RepDistiller, shortcuts that change shape are 1x1 convolutions with batch normalisation; the wide
variants have twice the channels in the first convolution and four times the channels after it; and state dict keys are the
same.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from functools import partial
from typing import Annotated, Any, Literal

from torch import Tensor, nn

from worker.distillation.contract import InputContract
from worker.distillation.networks.family import Network, WeightShapes, of_layers
from worker.distillation.networks.residual import BasicBlock, blocks_per_group, group, initialise
from worker.distillation.parameters import Range

DEPTHS = (8, 14, 20, 32, 44, 56, 110)
WIDE_DEPTHS = (8, 32)
NARROW, WIDE = (16, 16, 32, 64), (32, 64, 128, 256)


class ResNet(nn.Module):
    """A 3x3 convolution, three groups of `(depth - 2) / 6` blocks at full, half and quarter resolution, and a linear layer.

    x (B, C, H, W) -> logits (B, K).
    """

    def __init__(
        self,
        depth: int,
        widths: tuple[int, int, int, int],
        classes: int,
        contract: InputContract,
        padded: bool = False,
    ):
        super().__init__()
        block = partial(BasicBlock, padded=padded)
        stem, *groups = widths
        self.conv1 = nn.Conv2d(contract.channels, stem, 3, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(stem)
        self.relu = nn.ReLU()
        blocks = blocks_per_group(depth, 2)
        self.layer1 = group(block, stem, groups[0], blocks, stride=1)
        self.layer2 = group(block, groups[0], groups[1], blocks, stride=2)
        self.layer3 = group(block, groups[1], groups[2], blocks, stride=2)
        self.avgpool = nn.AdaptiveAvgPool2d(1)
        self.fc = nn.Linear(groups[2], classes)
        initialise(self)

    def forward(self, x: Tensor) -> Tensor:
        x = self.relu(self.bn1(self.conv1(x)))
        x = self.layer3(self.layer2(self.layer1(x)))
        return self.fc(self.avgpool(x).flatten(1))


@dataclass(frozen=True)
class Options:
    """Depth and width of a residual network."""

    depth: Annotated[int, Range(ge=8, le=1202), "Number of layers: 6 n + 2 for n blocks at each resolution."] = 20
    width: Annotated[
        int,
        Range(ge=1, le=1024),
        "Channels at full resolution; twice as many at half, four times at quarter resolution.",
    ] = 16
    shortcut: Annotated[
        Literal["projection", "padded"],
        "Shortcuts that change shape: 1x1 convolutions, or the paper's for CIFAR without parameters (its option A).",
    ] = "projection"


def build_own(classes: int, contract: InputContract, options: Options) -> ResNet:
    width = options.width
    widths = (width, width, 2 * width, 4 * width)
    return ResNet(options.depth, widths, classes, contract, padded=options.shortcut == "padded")


def guess(shapes: WeightShapes) -> Iterable[dict[str, Any]]:
    """Depth and width; convolutions of one pixel are shortcuts."""
    convolutions = [shape for shape in shapes if len(shape) == 4 and shape[2] == 3]
    if len(convolutions) > 6 and len(convolutions) % 6 == 1:
        projected = len(convolutions) < len(shapes) - 1
        shortcut = "projection" if projected else "padded"
        yield {"depth": len(convolutions) + 1, "width": shapes[0][0], "shortcut": shortcut}


def build(
    depth: int, widths: tuple[int, int, int, int], classes: int, contract: InputContract, options: object
) -> ResNet:
    return ResNet(depth, widths, classes, contract)


def _network(depth: int, widths: tuple[int, int, int, int], suffix: str) -> Network:
    description = f"A residual network of {depth} layers for images of about 32x32 pixels{suffix}."
    stages_with_projection = 2 if widths[0] == widths[1] else 3
    return Network(
        description,
        partial(build, depth, widths),
        "arXiv:1512.03385",
        as_family=("resnet_cifar", {"depth": depth}) if widths == NARROW else ("", {}),
        guess=of_layers(depth + stages_with_projection),
    )


NETWORKS = {f"resnet{depth}_cifar": _network(depth, NARROW, "") for depth in DEPTHS} | {
    f"resnet{depth}x4_cifar": _network(depth, WIDE, ", four times as wide") for depth in WIDE_DEPTHS
}
NETWORKS["resnet_cifar"] = Network(
    "A residual network for images of about 32x32 pixels, of any depth and width.",
    build_own,
    "arXiv:1512.03385",
    Options,
    widths=("width",),
    guess=guess,
)
