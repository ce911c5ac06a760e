"""AlexNet with a single column, of any width.

Krizhevsky, "One weird trick for parallelizing convolutional neural networks", arXiv:1404.5997. The state dict keys are
torchvision's, so that a student can be initialised with a slice of `torchvision/alexnet`. DAFL (arXiv:1904.01186) distils
such a network with two classes at 224x224 pixels into one of half its width.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Annotated, Any

from torch import Tensor, nn

from worker.distillation.contract import InputContract
from worker.distillation.networks.family import Network, WeightShapes, check_size
from worker.distillation.parameters import Range

LEAST = 63
"""Smallest height and width of the images in pixels."""
MAP = 6
"""Height and width of the feature map that the linear layers read: that of 224 pixels; other maps are pooled to this size."""
TIMES = (1, 3, 6, 4, 4, 64)
"""Channels of the convolutions, and units of the two hidden linear layers, as multiples of the width."""


class AlexNet(nn.Module):
    """Five convolutions, three of them with max pooling, and three linear layers with dropout before the first two.

    x (B, C, H, W) with H and W of at least 63 -> logits (B, K). With width 64, 3 channels and 1000 classes it has 61,100,840
    parameters.
    """

    def __init__(self, width: int, dropout: float, classes: int, contract: InputContract):
        super().__init__()
        first, second, third, fourth, fifth, hidden = (width * times for times in TIMES)
        self.features = nn.Sequential(
            nn.Conv2d(contract.channels, first, 11, stride=4, padding=2), nn.ReLU(), nn.MaxPool2d(3, 2),
            nn.Conv2d(first, second, 5, padding=2), nn.ReLU(), nn.MaxPool2d(3, 2),
            nn.Conv2d(second, third, 3, padding=1), nn.ReLU(),
            nn.Conv2d(third, fourth, 3, padding=1), nn.ReLU(),
            nn.Conv2d(fourth, fifth, 3, padding=1), nn.ReLU(), nn.MaxPool2d(3, 2),
        )  # fmt: skip
        self.avgpool = nn.AdaptiveAvgPool2d(MAP)
        self.classifier = nn.Sequential(
            nn.Dropout(dropout), nn.Linear(fifth * MAP**2, hidden), nn.ReLU(),
            nn.Dropout(dropout), nn.Linear(hidden, hidden), nn.ReLU(),
            nn.Linear(hidden, classes),
        )  # fmt: skip

    def forward(self, x: Tensor) -> Tensor:
        return self.classifier(self.avgpool(self.features(x)).flatten(1))


@dataclass(frozen=True)
class Options:
    """Width and dropout of an AlexNet."""

    width: Annotated[int, Range(ge=1, le=512), "Channels of the first convolution: 64 (published), 32 (half)."] = 64
    dropout: Annotated[float, Range(ge=0, lt=1), "Dropout probability before the first two linear layers."] = 0.5


def build(classes: int, contract: InputContract, options: Options) -> AlexNet:
    check_size(contract, LEAST)
    return AlexNet(options.width, options.dropout, classes, contract)


def guess(shapes: WeightShapes) -> Iterable[dict[str, Any]]:
    """The width, which the first convolution has."""
    if len(shapes) == 8:
        yield {"width": shapes[0][0]}


NETWORKS = {
    "alexnet": Network(
        "AlexNet with a single column as in torchvision, of any width; 32 is half of the published width.",
        build,
        "arXiv:1404.5997",
        Options,
        widths=("width",),
        guess=guess,
    )
}
