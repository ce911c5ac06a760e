"""Building blocks of the residual networks for images of about 32x32 pixels."""

from collections import OrderedDict
from collections.abc import Callable
from typing import ClassVar

from torch import Tensor, nn

from worker.distillation.errors import Problem, SpecError

FEW_CHANNELS = 16
"""Below this number of channels a 1x1 convolution gets no stride; see `pointwise`."""


class BasicBlock(nn.Module):
    """Two 3x3 convolutions and a shortcut: (B, C_in, H, W) -> (B, C_out, H / stride, W / stride).

    A shortcut that changes shape is a 1x1 convolution with batch normalisation; with `padded` it has no parameters.
    """

    shortcut_name: ClassVar[str] = "downsample"
    """Attribute of the shortcut, which is a part of the state dict's keys."""

    def __init__(self, channels_in: int, channels_out: int, stride: int, padded: bool = False):
        super().__init__()
        self.conv1 = nn.Conv2d(channels_in, channels_out, 3, stride, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(channels_out)
        self.relu1 = nn.ReLU()
        self.conv2 = nn.Conv2d(channels_out, channels_out, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(channels_out)
        make = _padded_shortcut if padded else _shortcut
        self.add_module(self.shortcut_name, make(channels_in, channels_out, stride))
        self.relu2 = nn.ReLU()

    def forward(self, x: Tensor) -> Tensor:
        change = getattr(self, self.shortcut_name)
        shortcut = x if change is None else change(x)
        x = self.relu1(self.bn1(self.conv1(x)))
        return self.relu2(self.bn2(self.conv2(x)) + shortcut)


def _shortcut(channels_in: int, channels_out: int, stride: int) -> nn.Sequential | None:
    if stride == 1 and channels_in == channels_out:
        return None
    return numbered(*pointwise(channels_in, channels_out, stride), nn.BatchNorm2d(channels_out))


def pointwise(channels_in: int, channels_out: int, stride: int, bias: bool = False) -> list[nn.Module]:
    """A 1x1 convolution of this stride: (B, C_in, H, W) -> (B, C_out, H / stride, W / stride).

    With few channels, a pooling layer takes every `stride`th pixel first, and the convolution has no stride, which is the same. oneDNN's
    backward pass of a 1x1 convolution with stride 2 and few channels writes beyond its memory on a CPU with AVX-512: the process crashes
    (torch 2.15, 8 channels of 64x80 pixels, channels last).
    """
    if stride > 1 and min(channels_in, channels_out) < FEW_CHANNELS:
        return [nn.MaxPool2d(1, stride), nn.Conv2d(channels_in, channels_out, 1, bias=bias)]
    return [nn.Conv2d(channels_in, channels_out, 1, stride, bias=bias)]


def numbered(*layers: nn.Module) -> nn.Sequential:
    """A sequence that numbers its layers without the pooling layer of `pointwise`, so that this layer changes no name of a weight."""
    others = [layer for layer in layers if not isinstance(layer, nn.MaxPool2d)]
    names = {id(layer): str(number) for number, layer in enumerate(others)}
    return nn.Sequential(OrderedDict((names.get(id(layer), "pool"), layer) for layer in layers))


class PaddedShortcut(nn.Module):
    """Every `stride`th pixel, with channels of zeros on both sides (arXiv:1512.03385, option A): (B, C, H, W) -> (B, C', H', W')."""

    def __init__(self, channels_in: int, channels_out: int, stride: int):
        super().__init__()
        before = (channels_out - channels_in) // 2
        self.stride, self.padding = stride, (before, channels_out - channels_in - before)

    def forward(self, x: Tensor) -> Tensor:
        return nn.functional.pad(x[:, :, :: self.stride, :: self.stride], (0, 0, 0, 0, *self.padding))


def _padded_shortcut(channels_in: int, channels_out: int, stride: int) -> nn.Module | None:
    return None if stride == 1 and channels_in == channels_out else PaddedShortcut(channels_in, channels_out, stride)


def group(
    block: Callable[[int, int, int], nn.Module], channels_in: int, channels_out: int, blocks: int, stride: int
) -> nn.Sequential:
    """A sequence of `block(channels_in, channels_out, stride)`, the first of which changes width and resolution."""
    rest = (block(channels_out, channels_out, 1) for _ in range(blocks - 1))
    return nn.Sequential(block(channels_in, channels_out, stride), *rest)


def initialise(network: nn.Module) -> None:
    """Initialise all convolutions as in He et al. (arXiv:1502.01852), so that gradients keep their scale."""
    for module in network.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")


def blocks_per_group(depth: int, outside: int) -> int:
    """Number of blocks of two convolutions in each of three groups; `outside` layers of the network are in no block.

    Raises:
        SpecError: no such network has this depth.
    """
    if (depth - outside) % 6:
        nearest = 6 * round((depth - outside) / 6) + outside
        raise SpecError([Problem("/options/depth", f"must be 6 n + {outside}, such as {nearest}, not {depth}")])
    return (depth - outside) // 6
