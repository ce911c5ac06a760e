"""VGG networks for images of about 32x32 pixels, with a single linear layer after the convolutions.

Simonyan, Zisserman, "Very deep convolutional networks for large-scale image recognition", arXiv:1409.1556, table 1. The
places of the poolings, VGG-8 and the state dict keys are those of the public benchmark HobbitLong/RepDistiller.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Annotated, Any, Literal

from torch import Tensor, nn

from worker.distillation.contract import InputContract
from worker.distillation.networks.family import Network, WeightShapes, check_size
from worker.distillation.parameters import Range

CONVOLUTIONS = {8: (1, 1, 1, 1, 1), 11: (1, 1, 2, 2, 2), 13: (2, 2, 2, 2, 2), 16: (2, 2, 3, 3, 3), 19: (2, 2, 4, 4, 4)}
"""Number of convolutions in each of the five groups, by the network's depth."""
TIMES = (1, 2, 4, 8, 8)
"""Channels of the groups, as multiples of the width."""
LEAST = 8
"""Smallest height and width of the images in pixels."""
LARGE = 64
"""Height and width from which the fourth group is pooled too."""


class VGG(nn.Module):
    """Five groups of 3x3 convolutions with ReLU, 2x2 max pooling after the first three, global average pooling, a linear layer.

    x (B, C, H, W) with H and W of at least 8 -> logits (B, K). The groups have 1, 2, 4, 8 and 8 times `width` channels.
    """

    def __init__(self, depth: int, width: int, batch_norm: bool, classes: int, contract: InputContract):
        super().__init__()
        pooled = 4 if min(contract.height, contract.width) >= LARGE else 3
        channels = contract.channels
        for number, (count, times) in enumerate(zip(CONVOLUTIONS[depth], TIMES, strict=True)):
            self.add_module(f"block{number}", _group(channels, width * times, count, batch_norm))
            self.add_module(f"relu{number}", nn.ReLU())
            if number < pooled:
                self.add_module(f"pool{number}", nn.MaxPool2d(2))
            channels = width * times
        self.avgpool = nn.AdaptiveAvgPool2d(1)
        self.classifier = nn.Linear(channels, classes)
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
                nn.init.zeros_(module.get_parameter("bias"))

    def forward(self, x: Tensor) -> Tensor:
        for name, layer in self.named_children():
            x = layer(x.flatten(1) if name == "classifier" else x)
        return x


def _group(channels_in: int, channels_out: int, count: int, batch_norm: bool) -> nn.Sequential:
    """Convolutions, each but the last with a ReLU."""
    layers: list[nn.Module] = []
    for _ in range(count):
        layers += [nn.Conv2d(channels_in, channels_out, 3, padding=1)]
        layers += [nn.BatchNorm2d(channels_out)] if batch_norm else []
        layers += [nn.ReLU()]
        channels_in = channels_out
    return nn.Sequential(*layers[:-1])


@dataclass(frozen=True)
class Options:
    """Depth and width of a VGG network."""

    depth: Annotated[
        Literal[8, 11, 13, 16, 19],
        "Number of layers in the name, counting the three linear layers of the published networks.",
    ] = 11
    width: Annotated[int, Range(ge=1, le=1024), "Channels at full resolution; eight times as many at the end."] = 64
    batch_norm: Annotated[bool, "Whether batch normalisation follows each convolution."] = True


def build(classes: int, contract: InputContract, options: Options) -> VGG:
    check_size(contract, LEAST)
    return VGG(options.depth, options.width, options.batch_norm, classes, contract)


def guess(shapes: WeightShapes) -> Iterable[dict[str, Any]]:
    """Depth and width; whether there is batch normalisation is tried."""
    depth = next((depth for depth, counts in CONVOLUTIONS.items() if sum(counts) == len(shapes) - 1), None)
    if depth is not None:
        yield from ({"depth": depth, "width": shapes[0][0], "batch_norm": each} for each in (True, False))


NETWORKS = {
    "vgg_cifar": Network(
        "A VGG network for images of about 32x32 pixels, of any published depth and any width; VGG-11 by default.",
        build,
        "arXiv:1409.1556",
        Options,
        widths=("width",),
        guess=guess,
    )
}
