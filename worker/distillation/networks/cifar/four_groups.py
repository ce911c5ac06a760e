"""What the residual networks of this folder share: four groups of blocks between a first convolution and a linear layer."""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Annotated, Any

from torch import Tensor, nn

from worker.distillation.networks.family import WeightShapes
from worker.distillation.networks.residual import group, initialise
from worker.distillation.parameters import Range

BLOCKS = {18: (2, 2, 2, 2), 34: (3, 4, 6, 3), 50: (3, 4, 6, 3), 101: (3, 4, 23, 3), 152: (3, 8, 36, 3)}
"""Number of blocks in each group, by depth (arXiv:1512.03385, table 1)."""
BOTTLENECKS = (50, 101, 152)
"""Depths of networks of bottlenecks; the others have basic blocks."""
EXPANSION = 4
"""Channels of a bottleneck's output, as a multiple of those inside it."""


class FourGroups(nn.Module):
    """First layers, four groups of blocks and a linear layer; each group after the first halves the resolution and doubles
    the width.

    x (B, C, H, W) -> logits (B, K). `first` are the first layers by name, which give `width` channels; the first group gives
    `expansion` times as many.
    """

    def __init__(
        self,
        first: Mapping[str, nn.Module],
        block: Callable[[int, int, int], nn.Module],
        blocks: Iterable[int],
        width: int,
        expansion: int,
        classes: int,
        groups: str = "layer",
    ):
        super().__init__()
        for name, layer in first.items():
            self.add_module(name, layer)
        channels, channels_out = width, expansion * width
        for number, count in enumerate(blocks, start=1):
            self.add_module(f"{groups}{number}", group(block, channels, channels_out, count, min(number, 2)))
            channels, channels_out = channels_out, 2 * channels_out
        self.avgpool = nn.AdaptiveAvgPool2d(1)
        self.linear = nn.Linear(channels, classes)
        initialise(self)

    def forward(self, x: Tensor) -> Tensor:
        for name, layer in self.named_children():
            x = layer(x.flatten(1) if name == "linear" else x)
        return x


@dataclass(frozen=True)
class Options:
    """Width of a residual network."""

    width: Annotated[
        int,
        Range(ge=1, le=1024),
        "Channels of the first convolution. The last group has eight times as many, and 32 times with bottlenecks.",
    ] = 64


def guess(depth: int, shortcuts: int, shapes: WeightShapes) -> Iterable[dict[str, Any]]:
    """The width, where there are as many layers as `depth` and the number of convolutions in `shortcuts` make."""
    if len(shapes) == depth + shortcuts:
        yield {"width": shapes[0][0]}
