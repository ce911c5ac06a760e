"""DenseNets for images of about 32x32 pixels, without ReLU between a block and its transition.

Huang, Liu, van der Maaten, Weinberger, "Densely connected convolutional networks", arXiv:1608.06993. State dict keys are those of
weiaicunzai/pytorch-cifar100.
"""

from itertools import accumulate

import torch
from torch import Tensor, nn

from worker.distillation.contract import InputContract
from worker.distillation.networks.cifar.densenet import BOTTLENECK, Options, guess
from worker.distillation.networks.family import Network


class Layer(nn.Module):
    """A 1x1 and a 3x3 convolution, whose output is put behind the input: (B, C, H, W) -> (B, C + growth, H, W)."""

    def __init__(self, channels: int, growth: int):
        super().__init__()
        inner = BOTTLENECK * growth
        self.bottle_neck = nn.Sequential(
            nn.BatchNorm2d(channels), nn.ReLU(), nn.Conv2d(channels, inner, 1, bias=False),
            nn.BatchNorm2d(inner), nn.ReLU(), nn.Conv2d(inner, growth, 3, padding=1, bias=False),
        )  # fmt: skip

    def forward(self, x: Tensor) -> Tensor:
        return torch.cat((x, self.bottle_neck(x)), 1)


class Transition(nn.Module):
    """Half of the channels at half of the resolution: (B, C, H, W) -> (B, C / 2, H / 2, W / 2)."""

    def __init__(self, channels: int):
        super().__init__()
        convolution = nn.Conv2d(channels, channels // 2, 1, bias=False)
        self.down_sample = nn.Sequential(nn.BatchNorm2d(channels), convolution, nn.AvgPool2d(2))

    def forward(self, x: Tensor) -> Tensor:
        return self.down_sample(x)


class DenseNet(nn.Module):
    """A 3x3 convolution, dense blocks with transitions between them, and a linear layer: (B, C, H, W) -> (B, K)."""

    def __init__(self, options: Options, classes: int, contract: InputContract):
        super().__init__()
        growth, channels = options.growth, 2 * options.growth
        self.conv1 = nn.Conv2d(contract.channels, channels, 3, padding=1, bias=False)
        self.features = nn.Sequential()
        last = len(options.blocks) - 1
        for number, count in enumerate(options.blocks):
            widths = list(accumulate([growth] * count, initial=channels))
            block = nn.Sequential()
            for index, width in enumerate(widths[:-1]):
                block.add_module(f"bottle_neck_layer_{index}", Layer(width, growth))
            channels = widths[-1]
            self.features.add_module(f"dense_block_layer_{number}" if number < last else f"dense_block{number}", block)
            if number < last:
                self.features.add_module(f"transition_layer_{number}", Transition(channels))
                channels //= 2
        self.features.add_module("bn", nn.BatchNorm2d(channels))
        self.features.add_module("relu", nn.ReLU())
        self.avgpool = nn.AdaptiveAvgPool2d(1)
        self.linear = nn.Linear(channels, classes)

    def forward(self, x: Tensor) -> Tensor:
        return self.linear(self.avgpool(self.features(self.conv1(x))).flatten(1))


def build(classes: int, contract: InputContract, options: Options) -> DenseNet:
    return DenseNet(options, classes, contract)


NETWORKS = {
    "densenet_cifar100": Network(
        "A DenseNet for images of about 32x32 pixels, as in weiaicunzai/pytorch-cifar100.",
        build,
        "arXiv:1608.06993",
        Options,
        guess=guess,
    )
}
