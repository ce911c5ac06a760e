"""Residual networks with activations before the convolutions, for images of about 32x32 pixels.

He, Zhang, Ren, Sun, "Identity mappings in deep residual networks", arXiv:1603.05027. State dict keys are those of
kuangliu/pytorch-cifar, where no normalisation follows the last block.
"""

from functools import partial

from torch import Tensor, nn

from worker.distillation.contract import InputContract
from worker.distillation.networks.cifar.four_groups import BLOCKS, BOTTLENECKS, FourGroups, Options, guess
from worker.distillation.networks.family import Network
from worker.distillation.networks.residual import numbered, pointwise


class Block(nn.Module):
    """Two 3x3 convolutions after batch normalisation and ReLU, and a shortcut that reads the first activation."""

    def __init__(self, channels_in: int, channels_out: int, stride: int):
        super().__init__()
        self.bn1 = nn.BatchNorm2d(channels_in)
        self.relu1 = nn.ReLU()
        self.conv1 = nn.Conv2d(channels_in, channels_out, 3, stride, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(channels_out)
        self.relu2 = nn.ReLU()
        self.conv2 = nn.Conv2d(channels_out, channels_out, 3, padding=1, bias=False)
        plain = stride == 1 and channels_in == channels_out
        self.shortcut = None if plain else numbered(*pointwise(channels_in, channels_out, stride))

    def forward(self, x: Tensor) -> Tensor:
        active = self.relu1(self.bn1(x))
        shortcut = x if self.shortcut is None else self.shortcut(active)
        return self.conv2(self.relu2(self.bn2(self.conv1(active)))) + shortcut


def build(depth: int, classes: int, contract: InputContract, options: Options) -> FourGroups:
    first = {"conv1": nn.Conv2d(contract.channels, options.width, 3, padding=1, bias=False)}
    return FourGroups(first, Block, BLOCKS[depth], options.width, 1, classes)


NETWORKS = {
    f"preact_resnet{depth}_cifar": Network(
        f"A residual network of {depth} layers with activations before the convolutions, for images of about 32x32 pixels.",
        partial(build, depth),
        "arXiv:1603.05027",
        Options,
        widths=("width",),
        guess=partial(guess, depth, 3),
    )
    for depth in BLOCKS
    if depth not in BOTTLENECKS
}
