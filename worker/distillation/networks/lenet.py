"""LeNet-5 and its half, with ReLU and max pooling by default instead of tanh and subsampling.

LeCun, Bottou, Bengio, Haffner, "Gradient-based learning applied to document recognition", 1998. The widths of the half,
and the third convolution over the whole map, are those of the teacher and student in DAFL (arXiv:1904.01186).
"""

from collections.abc import Iterable
from dataclasses import dataclass
from functools import partial
from itertools import pairwise
from typing import Annotated, Any, Literal

from torch import Tensor, nn

from worker.distillation.contract import InputContract
from worker.distillation.networks.family import Network, WeightShapes, check_size, of_layers
from worker.distillation.parameters import Range

LEAST = 16
ACTIVATIONS: dict[str, type[nn.Module]] = {
    "relu": nn.ReLU, "tanh": nn.Tanh, "sigmoid": nn.Sigmoid, "leaky_relu": nn.LeakyReLU, "elu": nn.ELU, "gelu": nn.GELU,
}  # fmt: skip
POOLINGS: dict[str, tuple[str, type[nn.MaxPool2d | nn.AvgPool2d]]] = {
    "max": ("maxpool", nn.MaxPool2d),
    "average": ("avgpool", nn.AvgPool2d),
}


class LeNet(nn.Module):
    """Three convolutions and two linear layers; at 1x32x32 and ten classes LeNet-5 has 61,706 parameters, its half 15,738.

    x (B, C, H, W) with H and W of at least 16 -> logits (B, K). The third convolution outputs a map of one pixel. With
    `third_linear` it is a linear layer on the flattened map, which computes the same.
    """

    def __init__(
        self,
        widths: tuple[int, int, int, int],
        classes: int,
        contract: InputContract,
        activation: str = "relu",
        pooling: str = "max",
        batch_norm: bool = False,
        padding: int = 0,
        third_linear: bool = False,
    ):
        super().__init__()
        first, second, third, hidden = widths
        rest = (_pooled(contract.height, padding), _pooled(contract.width, padding))
        convolutions = [nn.Conv2d(contract.channels, first, 5, padding=padding), nn.Conv2d(first, second, 5)]
        self.first_linear = "fc1"
        if third_linear:
            sizes: tuple[int, ...] = (second * rest[0] * rest[1], third, hidden)
        else:
            convolutions.append(nn.Conv2d(second, third, rest))
            sizes = (third, hidden)
        for number, convolution in enumerate(convolutions, start=1):
            self.add_module(f"conv{number}", convolution)
            if batch_norm:
                self.add_module(f"bn{number}", nn.BatchNorm2d(convolution.out_channels))
            self.add_module(f"{activation}{number}", ACTIVATIONS[activation]())
            if number < 3:
                name, pool = POOLINGS[pooling]
                self.add_module(f"{name}{number}", pool(2))
        for number, (units_in, units_out) in enumerate(pairwise(sizes), start=1):
            self.add_module(f"fc{number}", nn.Linear(units_in, units_out))
            self.add_module(f"{activation}{number + 5 - len(sizes)}", ACTIVATIONS[activation]())
        self.add_module(f"fc{len(sizes)}", nn.Linear(hidden, classes))

    def forward(self, x: Tensor) -> Tensor:
        for name, layer in self.named_children():
            x = layer(x.flatten(1) if name == self.first_linear else x)
        return x


def _pooled(pixels: int, padding: int) -> int:
    """Height or width of the map after two 5x5 convolutions, the first padded, each followed by 2x2 pooling."""
    return ((pixels + 2 * padding - 4) // 2 - 4) // 2


@dataclass(frozen=True)
class Options:
    """Widths and layers of a LeNet; the defaults are those of the half."""

    first: Annotated[int, Range(ge=1, le=1024), "Channels of the first convolution."] = 3
    second: Annotated[int, Range(ge=1, le=1024), "Channels of the second convolution."] = 8
    third: Annotated[
        int, Range(ge=1, le=4096), "Channels of the third convolution, whose kernel covers the whole map."
    ] = 60
    hidden: Annotated[int, Range(ge=1, le=4096), "Units of the hidden linear layer."] = 42
    activation: Annotated[
        Literal["relu", "tanh", "sigmoid", "leaky_relu", "elu", "gelu"],
        "Activation after every layer but the last. The published network has a scaled tanh.",
    ] = "relu"
    pooling: Annotated[
        Literal["max", "average"],
        "Pooling after the first two convolutions. The published network averages, with a learned scale and shift.",
    ] = "max"
    batch_norm: Annotated[bool, "Whether batch normalisation follows each convolution."] = False
    padding: Annotated[
        int,
        Range(ge=0, le=8),
        "Zeros at each edge of the image; 2 makes a 28x28 image as large as the published 32x32.",
    ] = 0
    third_linear: Annotated[
        bool, "Whether the third layer is linear on the flattened map, as in many tutorials; it computes the same."
    ] = False


def guess(shapes: WeightShapes) -> Iterable[dict[str, Any]]:
    """Widths from the shapes; whether there is padding, or batch normalisation, is tried."""
    if len(shapes) != 5 or [len(shape) for shape in shapes[:2]] != [4, 4]:
        return
    names = ("first", "second", "third", "hidden")
    widths: dict[str, Any] = {name: shape[0] for name, shape in zip(names, shapes, strict=False)}
    for padding, batch_norm in ((0, False), (2, False), (0, True), (2, True)):
        yield widths | {"padding": padding, "batch_norm": batch_norm, "third_linear": len(shapes[2]) == 2}


def build(widths: tuple[int, int, int, int], classes: int, contract: InputContract, options: object) -> LeNet:
    check_size(contract, LEAST)
    return LeNet(widths, classes, contract)


def build_own(classes: int, contract: InputContract, options: Options) -> LeNet:
    check_size(contract, LEAST)
    widths = (options.first, options.second, options.third, options.hidden)
    return LeNet(
        widths,
        classes,
        contract,
        activation=options.activation,
        pooling=options.pooling,
        batch_norm=options.batch_norm,
        padding=options.padding,
        third_linear=options.third_linear,
    )


UNSEEN = {"activation": "relu", "pooling": "max"}
PAPER = "LeCun et al. 1998; widths as in arXiv:1904.01186"
NETWORKS = {
    "lenet5": Network(
        "LeNet-5 with ReLU and max pooling: convolutions of 6, 16 and 120 channels, then 84 hidden units.",
        partial(build, (6, 16, 120, 84)),
        PAPER,
        as_family=("lenet", {"first": 6, "second": 16, "third": 120, "hidden": 84}),
        guess=of_layers(5),
        unseen=UNSEEN,
    ),
    "lenet5_half": Network(
        "LeNet-5 at half its widths: convolutions of 3, 8 and 60 channels, then 42 hidden units.",
        partial(build, (3, 8, 60, 42)),
        PAPER,
        as_family=("lenet", {}),
        guess=of_layers(5),
        unseen=UNSEEN,
    ),
    "lenet": Network(
        "LeNet-5 with configurable widths, activation and pooling; ReLU and max pooling by default.",
        build_own,
        PAPER,
        Options,
        widths=("first", "second", "third", "hidden"),
        guess=guess,
        unseen=UNSEEN,
    ),
}
