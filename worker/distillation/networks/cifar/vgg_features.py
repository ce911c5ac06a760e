"""VGG networks as one `features` sequence with a choice of classifiers, for images of about 32x32 pixels.

Simonyan, Zisserman, "Very deep convolutional networks for large-scale image recognition", arXiv:1409.1556, table 1, with batch
normalisation. State dict keys are those of kuangliu/pytorch-cifar (one linear layer), chenyaofo/pytorch-cifar-models (hidden layers
of 512 units) and weiaicunzai/pytorch-cifar100 (4096 units).
"""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Annotated, Any, Literal

from torch import Tensor, nn

from worker.distillation.contract import InputContract
from worker.distillation.networks.family import Network, WeightShapes, check_size
from worker.distillation.networks.vgg_cifar import CONVOLUTIONS, TIMES
from worker.distillation.parameters import Range

LEAST = 32


class VGG(nn.Module):
    """Five groups of 3x3 convolutions with ReLU, each followed by 2x2 max pooling, and one or three linear layers.

    x (B, C, H, W) with H and W of at least 32 -> logits (B, K). Maps larger than one pixel are averaged.
    """

    def __init__(self, options: "Options", classes: int, contract: InputContract):
        super().__init__()
        layers: list[nn.Module] = []
        channels = contract.channels
        for count, times in zip(CONVOLUTIONS[options.depth], TIMES, strict=True):
            for _ in range(count):
                layers.append(nn.Conv2d(channels, options.width * times, 3, padding=1))
                layers += [nn.BatchNorm2d(options.width * times)] if options.batch_norm else []
                layers.append(nn.ReLU())
                channels = options.width * times
            layers.append(nn.MaxPool2d(2))
        self.features = nn.Sequential(*layers)
        self.avgpool = nn.AdaptiveAvgPool2d(1)
        self.classifier = _classifier(channels, options.hidden, classes)

    def forward(self, x: Tensor) -> Tensor:
        return self.classifier(self.avgpool(self.features(x)).flatten(1))


def _classifier(channels: int, hidden: int | None, classes: int) -> nn.Module:
    if hidden is None:
        return nn.Linear(channels, classes)
    return nn.Sequential(
        nn.Linear(channels, hidden), nn.ReLU(), nn.Dropout(),
        nn.Linear(hidden, hidden), nn.ReLU(), nn.Dropout(),
        nn.Linear(hidden, classes),
    )  # fmt: skip


@dataclass(frozen=True)
class Options:
    """Depth, width and classifier of a VGG network."""

    depth: Annotated[Literal[11, 13, 16, 19], "Number of layers in the published network's name."] = 16
    width: Annotated[int, Range(ge=1, le=1024), "Channels at full resolution; eight times as many at the end."] = 64
    batch_norm: Annotated[bool, "Whether batch normalisation follows each convolution."] = True
    hidden: Annotated[
        int | None, Range(ge=1, le=65536), "Units of two hidden linear layers; a single linear layer if null."
    ] = None


def build(classes: int, contract: InputContract, options: Options) -> VGG:
    check_size(contract, LEAST)
    return VGG(options, classes, contract)


def guess(shapes: WeightShapes) -> Iterable[dict[str, Any]]:
    """Depth, width and classifier; whether there is batch normalisation is tried."""
    linear = [shape for shape in shapes if len(shape) == 2]
    convolutions = len(shapes) - len(linear)
    depth = next((each for each, counts in CONVOLUTIONS.items() if sum(counts) == convolutions and each != 8), None)
    if depth is not None and len(linear) in (1, 3):
        own = {"depth": depth, "width": shapes[0][0], "hidden": linear[0][0] if len(linear) == 3 else None}
        yield from (own | {"batch_norm": each} for each in (True, False))


NETWORKS = {
    "vgg_features": Network(
        "A VGG network whose convolutions are one sequence, for images of 32x32 pixels, with one or three linear layers.",
        build,
        "arXiv:1409.1556",
        Options,
        widths=("width", "hidden"),
        guess=guess,
    )
}
