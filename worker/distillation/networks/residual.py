"""What the residual networks for images of about 32x32 pixels have in common."""

from collections.abc import Callable
from typing import ClassVar

from torch import Tensor, nn

from worker.distillation.errors import Problem, SpecError


class BasicBlock(nn.Module):
    """Two 3x3 convolutions and a shortcut: (B, C_in, H, W) -> (B, C_out, H / stride, W / stride).

    A shortcut that changes shape is a 1x1 convolution with batch normalisation.
    """

    shortcut_name: ClassVar[str] = "downsample"
    """The shortcut's, which is a part of keys."""

    def __init__(self, channels_in: int, channels_out: int, stride: int):
        super().__init__()
        self.conv1 = nn.Conv2d(channels_in, channels_out, 3, stride, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(channels_out)
        self.relu1 = nn.ReLU()
        self.conv2 = nn.Conv2d(channels_out, channels_out, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(channels_out)
        self.add_module(self.shortcut_name, _shortcut(channels_in, channels_out, stride))
        self.relu2 = nn.ReLU()

    def forward(self, x: Tensor) -> Tensor:
        change = getattr(self, self.shortcut_name)
        shortcut = x if change is None else change(x)
        x = self.relu1(self.bn1(self.conv1(x)))
        return self.relu2(self.bn2(self.conv2(x)) + shortcut)


def _shortcut(channels_in: int, channels_out: int, stride: int) -> nn.Sequential | None:
    if stride == 1 and channels_in == channels_out:
        return None
    return nn.Sequential(nn.Conv2d(channels_in, channels_out, 1, stride, bias=False), nn.BatchNorm2d(channels_out))


def group(
    block: Callable[[int, int, int], nn.Module], channels_in: int, channels_out: int, blocks: int, stride: int
) -> nn.Sequential:
    """Blocks after each other, the first of which changes width and resolution; `block(channels_in, channels_out, stride)`."""
    rest = (block(channels_out, channels_out, 1) for _ in range(blocks - 1))
    return nn.Sequential(block(channels_in, channels_out, stride), *rest)


def initialise(network: nn.Module) -> None:
    """Draw the weights of all convolutions as He et al. do (arXiv:1502.01852), so that gradients keep their size."""
    for module in network.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")


def blocks_at_each_of_three(depth: int, beside: int) -> int:
    """How many blocks of two convolutions a network of three resolutions has, of whose layers so many are in no block.

    Raises:
        SpecError: the depth is not that of such a network.
    """
    if (depth - beside) % 6:
        nearest = 6 * round((depth - beside) / 6) + beside
        raise SpecError([Problem("/options/depth", f"must be 6 n + {beside}, such as {nearest}, not {depth}")])
    return (depth - beside) // 6
