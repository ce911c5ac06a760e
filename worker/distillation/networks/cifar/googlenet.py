"""GoogLeNet for images of about 32x32 pixels.

Szegedy et al., "Going deeper with convolutions", arXiv:1409.4842, table 1, with batch normalisation, two 3x3 convolutions instead
of a 5x5, and one convolution instead of the layers before the first inception module. State dict keys are those of
kuangliu/pytorch-cifar and weiaicunzai/pytorch-cifar100.
"""

from functools import partial

import torch
from torch import Tensor, nn

from worker.distillation.contract import InputContract
from worker.distillation.networks.family import Network, check_size, of_layers

FIRST = 192
"""Channels of the first convolution."""
MODULES: dict[str, tuple[int, int, int, int, int, int]] = {
    "a3": (64, 96, 128, 16, 32, 32), "b3": (128, 128, 192, 32, 96, 64),
    "a4": (192, 96, 208, 16, 48, 64), "b4": (160, 112, 224, 24, 64, 64), "c4": (128, 128, 256, 24, 64, 64),
    "d4": (112, 144, 288, 32, 64, 64), "e4": (256, 160, 320, 32, 128, 128),
    "a5": (256, 160, 320, 32, 128, 128), "b5": (384, 192, 384, 48, 128, 128),
}  # fmt: skip
"""Channels of the inception modules: 1x1; 3x3 reduced and 3x3; 5x5 reduced and 5x5; pooled."""
POOLED_AFTER = ("b3", "e4")
LAYERS = 65
"""Convolutions and linear layers."""
LEAST = 8


def _convolution(channels_in: int, channels_out: int, kernel: int, epsilon: float = 1e-5) -> list[nn.Module]:
    convolution = nn.Conv2d(channels_in, channels_out, kernel, padding=kernel // 2)
    return [convolution, nn.BatchNorm2d(channels_out, epsilon), nn.ReLU()]


class Inception(nn.Module):
    """Four branches side by side: (B, C_in, H, W) -> (B, C_out, H, W).

    With `large_epsilon`, the second normalisation of the third branch has its number of channels as epsilon.
    """

    def __init__(self, channels: int, widths: tuple[int, int, int, int, int, int], large_epsilon: bool):
        super().__init__()
        one, reduced3, three, reduced5, five, pooled = widths
        epsilon = float(five) if large_epsilon else 1e-5
        self.b1 = nn.Sequential(*_convolution(channels, one, 1))
        self.b2 = nn.Sequential(*_convolution(channels, reduced3, 1), *_convolution(reduced3, three, 3))
        self.b3 = nn.Sequential(
            *_convolution(channels, reduced5, 1),
            *_convolution(reduced5, five, 3, epsilon),
            *_convolution(five, five, 3),
        )
        self.b4 = nn.Sequential(nn.MaxPool2d(3, 1, padding=1), *_convolution(channels, pooled, 1))

    def forward(self, x: Tensor) -> Tensor:
        return torch.cat((self.b1(x), self.b2(x), self.b3(x), self.b4(x)), 1)


class GoogLeNet(nn.Module):
    """A 3x3 convolution, nine inception modules in three groups and a linear layer: (B, C, H, W) -> (B, K).

    `first` is the name of the first layers, whose convolution has `padding`.
    """

    def __init__(self, first: str, padding: int, large_epsilon: bool, classes: int, contract: InputContract):
        super().__init__()
        opening = nn.Conv2d(contract.channels, FIRST, 3, padding=padding)
        self.add_module(first, nn.Sequential(opening, nn.BatchNorm2d(FIRST), nn.ReLU()))
        channels = FIRST
        for name, widths in MODULES.items():
            self.add_module(name, Inception(channels, widths, large_epsilon))
            channels = sum(widths[index] for index in (0, 2, 4, 5))
            if name in POOLED_AFTER:
                self.add_module(f"maxpool{name[1]}", nn.MaxPool2d(3, 2, padding=1))
        self.avgpool = nn.AdaptiveAvgPool2d(1)
        self.linear = nn.Linear(channels, classes)

    def forward(self, x: Tensor) -> Tensor:
        for name, layer in self.named_children():
            x = layer(x.flatten(1) if name == "linear" else x)
        return x


def build(
    first: str, padding: int, large_epsilon: bool, classes: int, contract: InputContract, options: object
) -> GoogLeNet:
    check_size(contract, LEAST)
    return GoogLeNet(first, padding, large_epsilon, classes, contract)


NETWORKS = {
    "googlenet_cifar": Network(
        "GoogLeNet with batch normalisation for images of about 32x32 pixels, as in kuangliu/pytorch-cifar.",
        partial(build, "pre_layers", 1, False),
        "arXiv:1409.4842",
        guess=of_layers(LAYERS),
    ),
    "googlenet_cifar100": Network(
        "The same as in weiaicunzai/pytorch-cifar100: without padding in the first convolution, and with one normalisation a"
        " module whose epsilon is its number of channels.",
        partial(build, "prelayer", 0, True),
        "arXiv:1409.4842",
        guess=of_layers(LAYERS),
    ),
}
