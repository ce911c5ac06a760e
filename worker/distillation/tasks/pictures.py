"""Pictures of what networks see at each pixel: colours of classes and of depth.

Shapes: C channels, H height, W width.
"""

from functools import lru_cache

import torch
from torch import Tensor

from worker.distillation.data.fields import IGNORED

STRENGTH = 0.6
"""Share of a class's colour in the picture."""
COLD, MIDDLE, WARM = (13.0, 8.0, 135.0), (203.0, 70.0, 121.0), (240.0, 249.0, 33.0)
"""Colours of the nearest, the middle and the farthest depth."""


@lru_cache(maxsize=1)
def palette() -> Tensor:
    """A colour (256, 3) uint8 for each class, as in the masks of Pascal VOC; the last is that of ignored pixels."""
    colours = torch.zeros(IGNORED + 1, 3, dtype=torch.int64)
    for number in range(IGNORED + 1):
        rest = number + 1  # the first class is black in VOC's table, which looks like no class
        for bit in range(7, -1, -1):
            for channel in range(3):
                colours[number, channel] |= ((rest >> channel) & 1) << bit
            rest >>= 3
    return colours.clamp(0, 255).to(torch.uint8)


def rgb(image_CHW: Tensor) -> Tensor:
    """An image of one or three channels as (3, H, W) on the CPU."""
    image = image_CHW.cpu()
    return image if len(image) == 3 else image[:1].expand(3, -1, -1)


def blended(image_CHW: Tensor, colour_3HW: Tensor, shown_HW: Tensor) -> Tensor:
    """The image (3, H, W) uint8 with colours laid over it where `shown` is true."""
    image = rgb(image_CHW).float()
    mixed = (1 - STRENGTH) * image + STRENGTH * colour_3HW.float()
    return torch.where(shown_HW, mixed, image).round().to(torch.uint8)


def ramp(depth_HW: Tensor, least: float, most: float) -> Tensor:
    """Depth as colours (3, H, W) uint8 from dark blue at `least` to yellow at `most`; unknown depth is black."""
    place = ((depth_HW - least) / max(most - least, 1e-6)).clamp(0, 1)[None]
    cold, middle, warm = (torch.tensor(each).view(3, 1, 1) for each in (COLD, MIDDLE, WARM))
    first = cold + (middle - cold) * (2 * place).clamp(max=1)
    colour = torch.where(place > 0.5, middle + (warm - middle) * (2 * place - 1), first)
    return torch.where(depth_HW[None] > 0, colour, torch.zeros_like(colour)).round().to(torch.uint8)
