"""The layers that a network described layer by layer may have: their parameters, and the modules that they stand for.

Each class is one kind. Its first own field has the name of the kind, so that `{"conv": 32, "kernel": 5}` is a `Conv`.
"""

from dataclasses import dataclass
from typing import Annotated, ClassVar, Literal

import torch
from torch import Tensor, nn

from worker.distillation.parameters import Range

MOST_UNITS = 65536
Shape = tuple[int, ...]
"""Shape of one image's activation: (C, H, W), or (N,) after flattening."""
Kernel = Annotated[int, Range(ge=1, le=64)]

ACTIVATIONS: dict[str, type[nn.Module]] = {
    "relu": nn.ReLU, "relu6": nn.ReLU6, "leaky_relu": nn.LeakyReLU, "elu": nn.ELU, "selu": nn.SELU, "gelu": nn.GELU,
    "silu": nn.SiLU, "hardswish": nn.Hardswish, "mish": nn.Mish, "softplus": nn.Softplus, "sigmoid": nn.Sigmoid,
    "tanh": nn.Tanh, "prelu": nn.PReLU,
}  # fmt: skip


CONCAT = "concat"
"""The pooling that doubles the channels."""


class Add(nn.Module):
    """The sum of two tensors of the same shape."""

    def forward(self, x: Tensor, other: Tensor) -> Tensor:
        if x.shape != other.shape:
            raise ValueError(f"cannot add activations of shape {tuple(x.shape[1:])} and {tuple(other.shape[1:])}")
        return x + other


class Concat(nn.Module):
    """Two tensors, one behind the other along the channels."""

    def forward(self, x: Tensor, other: Tensor) -> Tensor:
        return torch.cat((x, other), dim=1)


class ConcatPool(nn.Module):
    """The maximum of each map, then the mean of each: (B, C, H, W) -> (B, 2 C, 1, 1); fastai's `AdaptiveConcatPool2d`."""

    def __init__(self) -> None:
        super().__init__()
        self.maximum = nn.AdaptiveMaxPool2d(1)
        self.average = nn.AdaptiveAvgPool2d(1)

    def forward(self, x: Tensor) -> Tensor:
        return torch.cat((self.maximum(x), self.average(x)), dim=1)


@dataclass(frozen=True, kw_only=True)
class Layer:
    """What layers of all kinds may have."""

    kind: ClassVar[str]
    dimensions: ClassVar[tuple[int, ...]] = (1, 3)
    """Length of the shapes that it reads: 3 for feature maps, 1 for vectors."""

    name: Annotated[
        str | None,
        "Path of its module, such as `features.0`; if null, the kind with its number: `conv1`, `conv2`.",
    ] = None
    input: Annotated[
        str | None, "Name of an earlier layer whose output it reads, or `image`; the layer before it if null."
    ] = None

    @property
    def other(self) -> str | None:
        """The name of a second layer that it reads."""
        return None

    def module(self, shape: Shape, classes: int) -> nn.Module:
        """A new module for inputs of this shape."""
        raise NotImplementedError


@dataclass(frozen=True, kw_only=True)
class Conv(Layer):
    """A convolution with a square kernel."""

    kind = "conv"
    dimensions = (3,)
    conv: Annotated[int, Range(ge=1, le=MOST_UNITS), "Channels of its output."]
    kernel: Annotated[Kernel, "Height and width of the kernel."] = 3
    stride: Annotated[Kernel, "Step of the kernel in pixels."] = 1
    padding: Annotated[int, Range(ge=0, le=64), "Zeros at each edge, in pixels."] = 0
    dilation: Annotated[Kernel, "Distance between the kernel's points in pixels."] = 1
    groups: Annotated[int, Range(ge=1, le=MOST_UNITS), "Groups of channels that are convolved apart."] = 1
    bias: Annotated[bool, "Whether it has a bias."] = True

    def module(self, shape: Shape, classes: int) -> nn.Module:
        return nn.Conv2d(
            shape[0], self.conv, self.kernel, self.stride, self.padding, self.dilation, self.groups, self.bias
        )


@dataclass(frozen=True, kw_only=True)
class Norm(Layer):
    """A normalisation with a learned scale and shift for each channel."""

    kind = "norm"
    norm: Annotated[Literal["batch", "group", "instance"], "Over what it normalises; `batch` takes vectors too."]
    groups: Annotated[int, Range(ge=1, le=MOST_UNITS), "Groups of channels of `group`."] = 32
    eps: Annotated[float, Range(gt=0, le=1), "Added to the variance."] = 1e-5

    def module(self, shape: Shape, classes: int) -> nn.Module:
        if self.norm == "batch":
            return nn.BatchNorm1d(shape[0], self.eps) if len(shape) == 1 else nn.BatchNorm2d(shape[0], self.eps)
        groups = shape[0] if self.norm == "instance" else self.groups
        return nn.GroupNorm(groups, shape[0], self.eps)


@dataclass(frozen=True, kw_only=True)
class Activation(Layer):
    """A function of each number."""

    kind = "activation"
    activation: Annotated[
        Literal[
            "relu", "relu6", "leaky_relu", "elu", "selu", "gelu", "silu", "hardswish", "mish", "softplus", "sigmoid",
            "tanh", "prelu",
        ],
        "Which function.",
    ]  # fmt: skip
    slope: Annotated[float, Range(ge=0, le=1), "Slope of `leaky_relu` below zero."] = 0.01

    def module(self, shape: Shape, classes: int) -> nn.Module:
        return nn.LeakyReLU(self.slope) if self.activation == "leaky_relu" else ACTIVATIONS[self.activation]()


@dataclass(frozen=True, kw_only=True)
class Pool(Layer):
    """A pooling of feature maps."""

    kind = "pool"
    dimensions = (3,)
    pool: Annotated[
        Literal["max", "average", "adaptive", "adaptive_max", "global", "global_max", "concat"],
        "How it pools: windows of `kernel`, `adaptive` windows to a map of `size`, or `global` to one pixel; averages"
        " where not `max`. `concat` has both global ones, first the maxima, so that it doubles the channels.",
    ]
    kernel: Annotated[Kernel, "Height and width of the window of `max` and `average`."] = 2
    stride: Annotated[Kernel | None, "Step of the window in pixels; the kernel if null."] = None
    padding: Annotated[int, Range(ge=0, le=32), "Pixels added at each edge."] = 0
    size: Annotated[Kernel, "Height and width of the output of `adaptive` and `adaptive_max`."] = 1

    def module(self, shape: Shape, classes: int) -> nn.Module:
        if self.pool == "max":
            return nn.MaxPool2d(self.kernel, self.stride, self.padding)
        if self.pool == "average":
            return nn.AvgPool2d(self.kernel, self.stride, self.padding)
        if self.pool == CONCAT:
            return ConcatPool()
        size = self.size if self.pool.startswith("adaptive") else 1
        return nn.AdaptiveMaxPool2d(size) if self.pool.endswith("max") else nn.AdaptiveAvgPool2d(size)


@dataclass(frozen=True, kw_only=True)
class Flatten(Layer):
    """A feature map as a vector."""

    kind = "flatten"
    flatten: Annotated[Literal[True], "Always true."]

    def module(self, shape: Shape, classes: int) -> nn.Module:
        return nn.Flatten()


@dataclass(frozen=True, kw_only=True)
class Linear(Layer):
    """A linear layer on vectors."""

    kind = "linear"
    dimensions = (1,)
    linear: Annotated[int | None, Range(ge=1, le=MOST_UNITS), "Units of its output; the number of classes if null."]
    bias: Annotated[bool, "Whether it has a bias."] = True

    def module(self, shape: Shape, classes: int) -> nn.Module:
        return nn.Linear(shape[0], self.linear or classes, self.bias)


@dataclass(frozen=True, kw_only=True)
class Dropout(Layer):
    """Dropout of single numbers."""

    kind = "dropout"
    dropout: Annotated[float, Range(ge=0, lt=1), "Probability of zero in training."]

    def module(self, shape: Shape, classes: int) -> nn.Module:
        return nn.Dropout(self.dropout)


@dataclass(frozen=True, kw_only=True)
class Addition(Layer):
    """The sum of its input and another layer's output, as a skip connection has it."""

    kind = "add"
    add: Annotated[str, "Name of the earlier layer, or `image`."]

    @property
    def other(self) -> str | None:
        return self.add

    def module(self, shape: Shape, classes: int) -> nn.Module:
        return Add()


@dataclass(frozen=True, kw_only=True)
class Concatenation(Layer):
    """The channels of its input, then those of another layer's output."""

    kind = "concat"
    concat: Annotated[str, "Name of the earlier layer, or `image`."]

    @property
    def other(self) -> str | None:
        return self.concat

    def module(self, shape: Shape, classes: int) -> nn.Module:
        return Concat()


KINDS: dict[str, type[Layer]] = {
    kind.kind: kind for kind in (Conv, Norm, Activation, Pool, Flatten, Linear, Dropout, Addition, Concatenation)
}
