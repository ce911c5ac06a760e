"""LeNet-5 and its half: ReLU and max pooling in the place of tanh and subsampling.

LeCun, Bottou, Bengio, Haffner, "Gradient-based learning applied to document recognition", 1998. The widths of the half,
and the third convolution that covers the whole map, are those of the teacher and student in DAFL (arXiv:1904.01186).
"""

from dataclasses import dataclass
from functools import partial
from typing import Annotated

from torch import Tensor, nn

from worker.distillation.errors import Problem, SpecError
from worker.distillation.networks.family import Network
from worker.distillation.parameters import Range
from worker.distillation.source import InputContract

LEAST = 16


class LeNet(nn.Module):
    """Three convolutions and two linear layers; at 1x32x32 and ten classes LeNet-5 has 61,706 parameters, its half 15,738.

    x (B, C, H, W) with H and W of at least 16 -> logits (B, K). The third convolution leaves a map of one pixel.
    """

    def __init__(self, widths: tuple[int, int, int, int], classes: int, contract: InputContract):
        super().__init__()
        first, second, third, hidden = widths
        rest = (_left(contract.height), _left(contract.width))
        self.conv1 = nn.Conv2d(contract.channels, first, 5)
        self.relu1 = nn.ReLU()
        self.maxpool1 = nn.MaxPool2d(2)
        self.conv2 = nn.Conv2d(first, second, 5)
        self.relu2 = nn.ReLU()
        self.maxpool2 = nn.MaxPool2d(2)
        self.conv3 = nn.Conv2d(second, third, rest)
        self.relu3 = nn.ReLU()
        self.fc1 = nn.Linear(third, hidden)
        self.relu4 = nn.ReLU()
        self.fc2 = nn.Linear(hidden, classes)

    def forward(self, x: Tensor) -> Tensor:
        x = self.maxpool1(self.relu1(self.conv1(x)))
        x = self.maxpool2(self.relu2(self.conv2(x)))
        x = self.relu3(self.conv3(x))
        return self.fc2(self.relu4(self.fc1(x.flatten(1))))


def _left(pixels: int) -> int:
    """How many of `pixels` are left after two 5x5 convolutions, each followed by 2x2 pooling."""
    return ((pixels - 4) // 2 - 4) // 2


@dataclass(frozen=True)
class Options:
    """Widths of a LeNet; the defaults are those of the half."""

    first: Annotated[int, Range(ge=1, le=1024), "Channels of the first convolution."] = 3
    second: Annotated[int, Range(ge=1, le=1024), "Channels of the second."] = 8
    third: Annotated[int, Range(ge=1, le=4096), "Channels of the third, which covers the whole map."] = 60
    hidden: Annotated[int, Range(ge=1, le=4096), "Units of the hidden linear layer."] = 42


def build(widths: tuple[int, int, int, int], classes: int, contract: InputContract, options: object) -> LeNet:
    if min(contract.height, contract.width) < LEAST:
        message = f"reads images of at least {LEAST}x{LEAST} pixels, not {contract.height}x{contract.width}"
        raise SpecError([Problem("/network", message)])
    return LeNet(widths, classes, contract)


def build_own(classes: int, contract: InputContract, options: Options) -> LeNet:
    return build((options.first, options.second, options.third, options.hidden), classes, contract, options)


PAPER = "LeCun et al. 1998; widths as in arXiv:1904.01186"
NETWORKS = {
    "lenet5": Network(
        "LeNet-5 with ReLU and max pooling: convolutions of 6, 16 and 120 channels, then 84 hidden units.",
        partial(build, (6, 16, 120, 84)),
        PAPER,
    ),
    "lenet5_half": Network(
        "LeNet-5 with half of its widths: convolutions of 3, 8 and 60 channels, then 42 hidden units.",
        partial(build, (3, 8, 60, 42)),
        PAPER,
    ),
    "lenet": Network("LeNet-5 with ReLU and max pooling, of any widths.", build_own, PAPER, Options),
}
