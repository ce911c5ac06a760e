"""A small residual encoder, with features at strides 4, 8 and 16.

Shapes: B batch, C channels, H height, W width.
"""

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

    def forward(self, x: Tensor) -> list[Tensor]:
        first = self.layer1(self.stem(x))
        second = self.layer2(first)
        return [first, second, self.layer3(second)]
