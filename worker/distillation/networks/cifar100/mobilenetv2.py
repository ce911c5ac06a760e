"""MobileNetV2 for images of about 32x32 pixels, with a 1x1 convolution on a padded image as first layer and biases.

Sandler et al., "MobileNetV2", arXiv:1801.04381. State dict keys are those of weiaicunzai/pytorch-cifar100.
"""

from torch import Tensor, nn

from worker.distillation.contract import InputContract
from worker.distillation.networks.family import Network, of_layers

GROUPS: tuple[tuple[int, int, int, int], ...] = (
    (1, 16, 1, 1), (6, 24, 2, 2), (6, 32, 3, 2), (6, 64, 4, 2), (6, 96, 3, 1), (6, 160, 3, 1), (6, 320, 1, 1),
)  # fmt: skip
"""Expansion, channels, number and first stride of the blocks."""
LAYERS = 54
"""Convolutions."""


class Block(nn.Module):
    """1x1, 3x3 and 1x1 convolutions, and the input if the shape stays: (B, C_in, H, W) -> (B, C_out, H / stride, W / stride)."""

    def __init__(self, channels_in: int, channels_out: int, stride: int, expansion: int):
        super().__init__()
        inner = expansion * channels_in
        self.residual = nn.Sequential(
            nn.Conv2d(channels_in, inner, 1), nn.BatchNorm2d(inner), nn.ReLU6(),
            nn.Conv2d(inner, inner, 3, stride, padding=1, groups=inner), nn.BatchNorm2d(inner), nn.ReLU6(),
            nn.Conv2d(inner, channels_out, 1), nn.BatchNorm2d(channels_out),
        )  # fmt: skip
        self.adds = stride == 1 and channels_in == channels_out

    def forward(self, x: Tensor) -> Tensor:
        y = self.residual(x)
        return x + y if self.adds else y


class MobileNetV2(nn.Module):
    """A 1x1 convolution, seven groups of blocks, and two 1x1 convolutions, of which the second classifies: (B, C, H, W) -> (B, K)."""

    def __init__(self, classes: int, contract: InputContract):
        super().__init__()
        channels = 32
        self.pre = nn.Sequential(
            nn.Conv2d(contract.channels, channels, 1, padding=1), nn.BatchNorm2d(channels), nn.ReLU6()
        )
        for number, (expansion, width, count, stride) in enumerate(GROUPS, start=1):
            first = Block(channels, width, stride, expansion)
            rest = (Block(width, width, 1, expansion) for _ in range(count - 1))
            self.add_module(f"stage{number}", nn.Sequential(first, *rest) if count > 1 else first)
            channels = width
        self.conv1 = nn.Sequential(nn.Conv2d(channels, 1280, 1), nn.BatchNorm2d(1280), nn.ReLU6())
        self.avgpool = nn.AdaptiveAvgPool2d(1)
        self.conv2 = nn.Conv2d(1280, classes, 1)

    def forward(self, x: Tensor) -> Tensor:
        for layer in self.children():
            x = layer(x)
        return x.flatten(1)


def build(classes: int, contract: InputContract, options: object) -> MobileNetV2:
    return MobileNetV2(classes, contract)


NETWORKS = {
    "mobilenetv2_cifar100": Network(
        "MobileNetV2 for images of about 32x32 pixels, as in weiaicunzai/pytorch-cifar100.",
        build,
        "arXiv:1801.04381",
        guess=of_layers(LAYERS),
    )
}
