"""Small networks for maps: an encoder, a feature pyramid, and one output for each class, or one depth, at each pixel.

Shapes: B batch, C channels, H height, W width, K classes.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from functools import partial
from typing import Annotated, Any

import torch.nn.functional as F
from torch import Tensor, nn

from worker.distillation.contract import InputContract
from worker.distillation.networks.dense.encoder import STRIDES, Encoder
from worker.distillation.networks.dense.pyramid import FeaturePyramid, smooth
from worker.distillation.networks.family import Network, WeightShapes, check_size
from worker.distillation.parameters import Range

LEAST_SIDE = 32
PAPER = "arXiv:1612.03144"


class MapNetwork(nn.Module):
    """An encoder, a feature pyramid, and a head on its finest map, whose outputs are enlarged to the image's size (bilinear).

    x (B, C, H, W) -> (B, K, H, W); with `positive` through a softplus, as depth has to be. Objectives compare the maps of the
    pyramid by default, not the map of classes.
    """

    def __init__(self, encoder: nn.Module, inputs: tuple[int, ...], channels: int, classes: int, positive: bool):
        super().__init__()
        self.positive = positive
        self.encoder = encoder
        self.fpn = FeaturePyramid(inputs, channels)
        self.features = smooth(channels, channels)
        self.head = nn.Conv2d(channels, classes, 1)
        self.stage_candidates = tuple(f"fpn.output.{number}" for number in range(len(inputs)))

    def forward(self, x: Tensor) -> Tensor:
        maps = self.fpn(self.encoder(x))
        y = self.head(self.features(maps[0]))
        y = F.interpolate(y, size=x.shape[2:], mode="bilinear", align_corners=False)
        return F.softplus(y) if self.positive else y


@dataclass(frozen=True)
class Options:
    """Width and depth of a network for maps."""

    width: Annotated[
        int,
        Range(ge=1, le=512),
        "Channels at a quarter of the resolution; twice as many at an eighth, four times at a sixteenth; the pyramid has twice as many.",
    ] = 28
    blocks: Annotated[int, Range(ge=1, le=32), "Residual blocks at each resolution."] = 1


def build(classes: int, contract: InputContract, options: Options, positive: bool = False) -> nn.Module:
    check_size(contract, LEAST_SIDE)
    encoder = Encoder(contract.channels, options.width, options.blocks)
    return MapNetwork(encoder, encoder.channels, 2 * options.width, classes, positive)


def guess(shapes: WeightShapes) -> Iterable[dict[str, Any]]:
    """The width of the first convolution, and the blocks, from the number of 3x3 convolutions."""
    convolutions = sum(len(shape) == 4 and shape[2] == 3 for shape in shapes)
    blocks, rest = divmod(convolutions - 2 - len(STRIDES), 2 * len(STRIDES))
    if blocks > 0 and not rest and len(shapes[0]) == 4:
        yield {"width": shapes[0][0], "blocks": blocks}


NETWORKS = {
    "fpn": Network(
        "A small network for segmentation: a residual encoder and a feature pyramid, which train on a CPU.",
        build,
        PAPER,
        Options,
        widths=("width",),
        guess=guess,
    ),
    "fpn_depth": Network(
        "The same for depth: one positive output for each pixel.",
        partial(build, positive=True),
        PAPER,
        Options,
        widths=("width",),
        guess=guess,
    ),
}
