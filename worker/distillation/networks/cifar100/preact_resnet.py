"""Residual networks with activations before the convolutions, for images of about 32x32 pixels, with biases.

He, Zhang, Ren, Sun, "Identity mappings in deep residual networks", arXiv:1603.05027. State dict keys are those of
weiaicunzai/pytorch-cifar100, where shortcuts read a block's input before its activation.
"""

from functools import partial

from torch import Tensor, nn

from worker.distillation.contract import InputContract
from worker.distillation.networks.cifar.four_groups import BLOCKS, BOTTLENECKS, EXPANSION, FourGroups, Options, guess
from worker.distillation.networks.family import Network
from worker.distillation.networks.residual import numbered, pointwise


def _convolution(channels_in: int, channels_out: int, kernel: int, stride: int = 1) -> list[nn.Module]:
    convolution: list[nn.Module] = [nn.Conv2d(channels_in, channels_out, kernel, stride, padding=kernel // 2)]
    if kernel == 1:
        convolution = pointwise(channels_in, channels_out, stride, bias=True)
    return [nn.BatchNorm2d(channels_in), nn.ReLU(), *convolution]


class Block(nn.Module):
    """Two 3x3 convolutions after batch normalisation and ReLU, and a shortcut: (B, C_in, H, W) -> (B, C_out, H', W')."""

    def __init__(self, channels_in: int, channels_out: int, stride: int):
        super().__init__()
        self.residual = numbered(*self._layers(channels_in, channels_out, stride))
        plain = stride == 1 and channels_in == channels_out
        shortcut = [] if plain else pointwise(channels_in, channels_out, stride, bias=True)
        *pool, self.shortcut = shortcut or [nn.Sequential()]
        self.pool = pool[0] if pool else None

    @staticmethod
    def _layers(channels_in: int, channels_out: int, stride: int) -> list[nn.Module]:
        return [*_convolution(channels_in, channels_out, 3, stride), *_convolution(channels_out, channels_out, 3)]

    def forward(self, x: Tensor) -> Tensor:
        return self.residual(x) + self.shortcut(x if self.pool is None else self.pool(x))


class Bottleneck(Block):
    """The same with convolutions of 1x1, 3x3 and 1x1 pixels."""

    @staticmethod
    def _layers(channels_in: int, channels_out: int, stride: int) -> list[nn.Module]:
        width = channels_out // EXPANSION
        first, second = _convolution(channels_in, width, 1, stride), _convolution(width, width, 3)
        return [*first, *second, *_convolution(width, channels_out, 1)]


def build(depth: int, classes: int, contract: InputContract, options: Options) -> FourGroups:
    opening = nn.Conv2d(contract.channels, options.width, 3, padding=1)
    first = {"pre": nn.Sequential(opening, nn.BatchNorm2d(options.width), nn.ReLU())}
    block, expansion = (Bottleneck, EXPANSION) if depth in BOTTLENECKS else (Block, 1)
    return FourGroups(first, block, BLOCKS[depth], options.width, expansion, classes, groups="stage")


NETWORKS = {
    f"preact_resnet{depth}_cifar100": Network(
        f"A residual network of {depth} layers with activations before the convolutions, for images of about 32x32 pixels, as in"
        " weiaicunzai/pytorch-cifar100.",
        partial(build, depth),
        "arXiv:1603.05027",
        Options,
        widths=("width",),
        guess=partial(guess, depth, 4 if depth in BOTTLENECKS else 3),
    )
    for depth in BLOCKS
}
