"""A small residual encoder, with features at strides 4, 8 and 16.

Shapes: B batch, C channels, H height, W width.
"""

from collections import OrderedDict
from typing import Any

from torch import Tensor, nn

from worker.distillation.networks.dense.pyramid import smooth
from worker.distillation.networks.residual import BasicBlock, group

STRIDES = (4, 8, 16)


class Encoder(nn.Module):
    """A convolution of stride 2 and three groups of residual blocks (He et al., arXiv:1512.03385), each of stride 2.

    x (B, C, H, W) -> three maps with `width`, twice and four times as many channels at 1/4, 1/8 and 1/16 of the resolution.
    """

    def __init__(self, channels: int, width: int, blocks: int):
        super().__init__()
        self.channels = (width, 2 * width, 4 * width)
        self.stem = smooth(channels, width, stride=2)
        self.layer1 = group(BasicBlock, width, width, blocks, stride=2)
        self.layer2 = group(BasicBlock, width, 2 * width, blocks, stride=2)
        self.layer3 = group(BasicBlock, 2 * width, 4 * width, blocks, stride=2)
        for layer in (self.layer1, self.layer2, self.layer3):
            _halve_before(layer[0])

    def forward(self, x: Tensor) -> list[Tensor]:
        first = self.layer1(self.stem(x))
        second = self.layer2(first)
        return [first, second, self.layer3(second)]


def _halve_before(block: Any) -> None:
    """Let the shortcut of a block take every second pixel first, and then convolve without a stride, which is the same.

    oneDNN's backward pass of a 1x1 convolution with stride 2 and few channels writes beyond its memory on a CPU with AVX-512: the
    process crashes (torch 2.15, 8 channels of 64x80 pixels, channels last). The names of the weights stay.
    """
    convolution, norm = block.downsample
    plain = nn.Conv2d(convolution.in_channels, convolution.out_channels, 1, bias=False)
    plain.weight = convolution.weight
    block.downsample = nn.Sequential(OrderedDict([("pool", nn.MaxPool2d(1, 2)), ("0", plain), ("1", norm)]))
