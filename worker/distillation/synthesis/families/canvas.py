"""The canvas of procedural images: its size, its coordinates, and the colours painted on it.

Shapes: B images, C channels, H height, W width. Values are from 0 (black) to 1 (white).
"""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

LARGEST = 64
"""Length in pixels of the shorter side up to which images are drawn; larger ones are scaled up."""
COLOUR_DEVIATION = 0.2
"""Standard deviation of a colour's channels around its brightness, if there are other than three."""
AXES = torch.tensor([[1.0, 1.0, -2.0], [1.0, -1.0, 0.0]]) / torch.tensor([[6.0], [2.0]]).sqrt()
"""Yellow against blue, and red against green: the axes along which colours of photographs vary after brightness (Ruderman,
Cronin, Chiao, "Statistics of cone responses to natural images", 1998)."""
CHROMA = torch.tensor([0.25, 0.1])
"""Standard deviation of a colour along these axes; the sizes are ours."""


@dataclass(frozen=True)
class Canvas:
    """The size at which images are drawn."""

    channels: int
    height: int
    width: int

    @classmethod
    def within(cls, channels: int, height: int, width: int) -> "Canvas":
        """The canvas of images of this size, scaled down if it is large."""
        scale = min(1.0, LARGEST / min(height, width))
        return cls(channels, max(1, round(height * scale)), max(1, round(width * scale)))

    @property
    def pixel(self) -> float:
        """The size of a pixel in the unit of `places`."""
        return 1 / min(self.height, self.width)

    def places(self) -> Tensor:
        """x and y of each pixel's centre (2, H, W); the shorter side reaches from -0.5 to 0.5."""
        y = (torch.arange(self.height) + 0.5 - self.height / 2) * self.pixel
        x = (torch.arange(self.width) + 0.5 - self.width / 2) * self.pixel
        return torch.stack([x.expand(self.height, -1), y[:, None].expand(-1, self.width)])

    def colours(self, count: int, random: torch.Generator, darkest: float = 0.0) -> Tensor:
        """Colours (count, C, 1, 1): a uniform brightness from `darkest` to 1, and normal deviations of the channels."""
        brightness = darkest + (1 - darkest) * torch.rand(count, 1, generator=random)
        if self.channels == 1:
            return brightness[:, :, None, None]
        return (brightness + tints(count, self.channels, random)).clamp(0, 1)[:, :, None, None]


def tints(count: int, channels: int, random: torch.Generator) -> Tensor:
    """Deviations of colours from their brightness (count, C), as frequent as in photographs if the channels are three."""
    if channels != len(AXES.T):
        return COLOUR_DEVIATION * torch.randn(count, channels, generator=random)
    return (CHROMA * torch.randn(count, len(AXES), generator=random)) @ AXES


def scaled(image_BCHW: Tensor, height: int, width: int) -> Tensor:
    """The images at another size, by bilinear interpolation."""
    if image_BCHW.shape[2:] == (height, width):
        return image_BCHW
    return F.interpolate(image_BCHW, (height, width), mode="bilinear", align_corners=False)


def uniform(low: float, high: float, *shape: int, random: torch.Generator) -> Tensor:
    """Uniform random numbers from `low` to `high`."""
    return low + (high - low) * torch.rand(*shape, generator=random)
