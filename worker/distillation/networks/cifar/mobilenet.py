"""MobileNets for images of about 32x32 pixels.

Howard et al., "MobileNets", arXiv:1704.04861; Sandler et al., "MobileNetV2", arXiv:1801.04381. Fewer layers halve the resolution
than for 224 pixels. State dict keys are those of kuangliu/pytorch-cifar, which also has a convolution in shortcuts that change the
number of channels.
"""

from collections.abc import Iterable
from functools import partial

from torch import Tensor, nn

from worker.distillation.contract import InputContract
from worker.distillation.networks.family import Network, of_layers

FIRST: tuple[tuple[int, int], ...] = (
    (64, 1), (128, 2), (128, 1), (256, 2), (256, 1), (512, 2), (512, 1), (512, 1), (512, 1), (512, 1), (512, 1), (1024, 2), (1024, 1),
)  # fmt: skip
"""Channels and stride of the blocks of MobileNet."""
SECOND: tuple[tuple[int, int, int, int], ...] = (
    (1, 16, 1, 1), (6, 24, 2, 1), (6, 32, 3, 2), (6, 64, 4, 2), (6, 96, 3, 1), (6, 160, 3, 2), (6, 320, 1, 1),
)  # fmt: skip
"""Expansion, channels, number and first stride of the blocks of MobileNetV2."""


class Separable(nn.Module):
    """A 3x3 convolution of each channel, then a 1x1 convolution, each with batch normalisation and ReLU."""

    def __init__(self, channels_in: int, channels_out: int, stride: int):
        super().__init__()
        self.conv1 = nn.Conv2d(channels_in, channels_in, 3, stride, padding=1, groups=channels_in, bias=False)
        self.bn1 = nn.BatchNorm2d(channels_in)
        self.conv2 = nn.Conv2d(channels_in, channels_out, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(channels_out)
        self.relu = nn.ReLU()

    def forward(self, x: Tensor) -> Tensor:
        return self.relu(self.bn2(self.conv2(self.relu(self.bn1(self.conv1(x))))))


class InvertedResidual(nn.Module):
    """A 1x1 convolution that expands, a 3x3 convolution of each channel, a 1x1 convolution, and a shortcut if stride is 1."""

    def __init__(self, channels_in: int, channels_out: int, expansion: int, stride: int):
        super().__init__()
        inner = expansion * channels_in
        self.stride = stride
        self.conv1 = nn.Conv2d(channels_in, inner, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(inner)
        self.conv2 = nn.Conv2d(inner, inner, 3, stride, padding=1, groups=inner, bias=False)
        self.bn2 = nn.BatchNorm2d(inner)
        self.conv3 = nn.Conv2d(inner, channels_out, 1, bias=False)
        self.bn3 = nn.BatchNorm2d(channels_out)
        self.shortcut = nn.Sequential()
        if stride == 1 and channels_in != channels_out:
            self.shortcut.append(nn.Conv2d(channels_in, channels_out, 1, bias=False))
            self.shortcut.append(nn.BatchNorm2d(channels_out))
        self.relu = nn.ReLU()

    def forward(self, x: Tensor) -> Tensor:
        y = self.relu(self.bn2(self.conv2(self.relu(self.bn1(self.conv1(x))))))
        y = self.bn3(self.conv3(y))
        return y + self.shortcut(x) if self.stride == 1 else y


class MobileNet(nn.Module):
    """A 3x3 convolution, blocks, for the second version a 1x1 convolution, and a linear layer: (B, C, H, W) -> (B, K)."""

    def __init__(self, version: int, classes: int, contract: InputContract):
        super().__init__()
        self.conv1 = nn.Conv2d(contract.channels, 32, 3, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(32)
        self.relu = nn.ReLU()
        self.layers = nn.Sequential(*_blocks(version))
        features = 1024
        if version == 2:
            features = 1280
            self.conv2 = nn.Conv2d(320, features, 1, bias=False)
            self.bn2 = nn.BatchNorm2d(features)
        self.last = version == 2
        self.avgpool = nn.AdaptiveAvgPool2d(1)
        self.linear = nn.Linear(features, classes)

    def forward(self, x: Tensor) -> Tensor:
        x = self.layers(self.relu(self.bn1(self.conv1(x))))
        if self.last:
            x = self.relu(self.bn2(self.conv2(x)))
        return self.linear(self.avgpool(x).flatten(1))


def _blocks(version: int) -> Iterable[nn.Module]:
    channels = 32
    if version == 1:
        for width, stride in FIRST:
            yield Separable(channels, width, stride)
            channels = width
        return
    for expansion, width, count, first in SECOND:
        for index in range(count):
            yield InvertedResidual(channels, width, expansion, 1 if index else first)
            channels = width


def build(version: int, classes: int, contract: InputContract, options: object) -> MobileNet:
    return MobileNet(version, classes, contract)


NETWORKS = {
    "mobilenet_cifar": Network(
        "MobileNet for images of about 32x32 pixels.", partial(build, 1), "arXiv:1704.04861", guess=of_layers(28)
    ),
    "mobilenetv2_cifar": Network(
        "MobileNetV2 for images of about 32x32 pixels.", partial(build, 2), "arXiv:1801.04381", guess=of_layers(58)
    ),
}
