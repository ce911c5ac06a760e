"""RepVGG for images of about 32x32 pixels.

Ding et al., "RepVGG: Making VGG-style ConvNets great again", arXiv:2101.03697, with stride 1 in the first two groups. State dict
keys are those of chenyaofo/pytorch-cifar-models and DingXiaoH/RepVGG.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from itertools import groupby
from typing import Annotated, Any

from torch import Tensor, nn

from worker.distillation.contract import InputContract
from worker.distillation.networks.family import Network, WeightShapes
from worker.distillation.parameters import Items, Range


def _branch(channels_in: int, channels_out: int, kernel: int, stride: int) -> nn.Sequential:
    branch = nn.Sequential()
    convolution = nn.Conv2d(channels_in, channels_out, kernel, stride, padding=kernel // 2, bias=False)
    branch.add_module("conv", convolution)
    branch.add_module("bn", nn.BatchNorm2d(channels_out))
    return branch


class Block(nn.Module):
    """The sum of a 3x3 convolution, a 1x1 convolution and the input, each normalised: (B, C, H, W) -> (B, C', H', W')."""

    def __init__(self, channels_in: int, channels_out: int, stride: int):
        super().__init__()
        self.relu = nn.ReLU()
        plain = stride == 1 and channels_in == channels_out
        self.rbr_identity = nn.BatchNorm2d(channels_in) if plain else None
        self.rbr_dense = _branch(channels_in, channels_out, 3, stride)
        self.rbr_1x1 = _branch(channels_in, channels_out, 1, stride)

    def forward(self, x: Tensor) -> Tensor:
        y = self.rbr_dense(x) + self.rbr_1x1(x)
        return self.relu(y if self.rbr_identity is None else y + self.rbr_identity(x))


class DeployedBlock(nn.Module):
    """What a block computes after training as one convolution: (B, C, H, W) -> (B, C', H', W')."""

    def __init__(self, channels_in: int, channels_out: int, stride: int):
        super().__init__()
        self.relu = nn.ReLU()
        self.rbr_reparam = nn.Conv2d(channels_in, channels_out, 3, stride, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        return self.relu(self.rbr_reparam(x))


@dataclass(frozen=True)
class Options:
    """Depth, widths and form of a RepVGG."""

    blocks: Annotated[
        tuple[Annotated[int, Range(ge=1, le=64)], ...], Items(least=4, most=4), "Blocks in each of the four groups."
    ] = (2, 4, 14, 1)
    widths: Annotated[
        tuple[Annotated[int, Range(ge=1, le=8192)], ...],
        Items(least=5, most=5),
        "Channels of the first block and of the four groups. A1 has 64, 64, 128, 256, 1280; A2 has 64, 96, 192, 384, 1408.",
    ] = (48, 48, 96, 192, 1280)
    deployed: Annotated[
        bool, "Whether each block is one convolution, as after training, instead of three branches."
    ] = False


class RepVGG(nn.Module):
    """A block, four groups of blocks, of which the last three halve the resolution, and a linear layer: (B, C, H, W) -> (B, K)."""

    def __init__(self, options: Options, classes: int, contract: InputContract):
        super().__init__()
        block = DeployedBlock if options.deployed else Block
        channels, *widths = options.widths
        self.stage0 = block(contract.channels, channels, 1)
        for number, (width, count) in enumerate(zip(widths, options.blocks, strict=True), start=1):
            rest = (block(width, width, 1) for _ in range(count - 1))
            first = block(channels, width, 1 if number == 1 else 2)
            self.add_module(f"stage{number}", nn.Sequential(first, *rest))
            channels = width
        self.gap = nn.AdaptiveAvgPool2d(1)
        self.linear = nn.Linear(channels, classes)

    def forward(self, x: Tensor) -> Tensor:
        for name, layer in self.named_children():
            x = layer(x.flatten(1) if name == "linear" else x)
        return x


def build(classes: int, contract: InputContract, options: Options) -> RepVGG:
    return RepVGG(options, classes, contract)


def guess(shapes: WeightShapes) -> Iterable[dict[str, Any]]:
    """Blocks and widths: the first block, then runs of blocks of one width."""
    kernels = [shape[2] if len(shape) == 4 else 0 for shape in shapes]
    if len(kernels) < 6 or set(kernels[:-1]) - {1, 3} or kernels[-1]:
        return
    first, *rest = [shape[0] for shape, kernel in zip(shapes, kernels, strict=True) if kernel == 3]
    runs = [(width, len(list(run))) for width, run in groupby(rest)]
    if len(runs) == 4:
        widths = [first, *(width for width, _ in runs)]
        yield {"blocks": [count for _, count in runs], "widths": widths, "deployed": 1 not in kernels}


NETWORKS = {
    "repvgg_cifar": Network(
        "RepVGG for images of about 32x32 pixels, by default RepVGG-A0.",
        build,
        "arXiv:2101.03697",
        Options,
        guess=guess,
    )
}
