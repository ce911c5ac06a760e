"""Residual networks in four groups for images of about 32x32 pixels.

He, Zhang, Ren, Sun, "Deep residual learning for image recognition", arXiv:1512.03385, table 1, with a 3x3 convolution instead
of the 7x7 convolution and pooling for 224 pixels. DAFL (arXiv:1904.01186) and the public benchmarks after it (zju-vipa/CMI)
distil the 34 layers into the 18 on CIFAR; state dict keys are the same as there and in kuangliu/pytorch-cifar.
"""

from functools import partial

from torch import Tensor, nn

from worker.distillation.contract import InputContract
from worker.distillation.networks.cifar.four_groups import (
    BLOCKS,
    BOTTLENECKS,
    EXPANSION,
    FourGroups,
    Options,
    guess,
)
from worker.distillation.networks.family import Network
from worker.distillation.networks.residual import BasicBlock, numbered, pointwise


class Block(BasicBlock):
    """A basic block with the state dict keys of these networks."""

    shortcut_name = "shortcut"


class Bottleneck(nn.Module):
    """Convolutions of 1x1, 3x3 and 1x1 pixels and a shortcut: (B, C_in, H, W) -> (B, C_out, H / stride, W / stride)."""

    def __init__(self, channels_in: int, channels_out: int, stride: int):
        super().__init__()
        width = channels_out // EXPANSION
        self.conv1 = nn.Conv2d(channels_in, width, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        self.conv2 = nn.Conv2d(width, width, 3, stride, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(width)
        self.conv3 = nn.Conv2d(width, channels_out, 1, bias=False)
        self.bn3 = nn.BatchNorm2d(channels_out)
        self.shortcut = nn.Sequential()
        if stride != 1 or channels_in != channels_out:
            self.shortcut = numbered(*pointwise(channels_in, channels_out, stride), nn.BatchNorm2d(channels_out))
        self.relu = nn.ReLU()

    def forward(self, x: Tensor) -> Tensor:
        y = self.relu(self.bn1(self.conv1(x)))
        y = self.bn3(self.conv3(self.relu(self.bn2(self.conv2(y)))))
        return self.relu(y + self.shortcut(x))


def build(depth: int, classes: int, contract: InputContract, options: Options) -> FourGroups:
    first = {
        "conv1": nn.Conv2d(contract.channels, options.width, 3, padding=1, bias=False),
        "bn1": nn.BatchNorm2d(options.width),
        "relu": nn.ReLU(),
    }
    block, expansion = (Bottleneck, EXPANSION) if depth in BOTTLENECKS else (Block, 1)
    return FourGroups(first, block, BLOCKS[depth], options.width, expansion, classes)


NETWORKS = {
    f"resnet{depth}_cifar": Network(
        f"A residual network of {depth} layers in four groups, as for ImageNet, for images of about 32x32 pixels.",
        partial(build, depth),
        "arXiv:1512.03385",
        Options,
        widths=("width",),
        guess=partial(guess, depth, 4 if depth in BOTTLENECKS else 3),
    )
    for depth in BLOCKS
}
