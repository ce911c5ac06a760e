"""Strong views: random operations of RandAugment, batched on the device that holds the images.

Cubuk et al., "RandAugment: practical automated data augmentation with a reduced search space", arXiv:1909.13719. Images are
(B, C, H, W) with values from 0 to 255; a magnitude (B, 1, 1, 1) is from -1 to 1, its sign being that of the change where
there are two ways. What a magnitude of 1 means is ours, after common implementations.
"""

from collections.abc import Callable
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from worker.distillation.data.images import LUMA

STRONGEST = 30
ROUNDS = 2
MOST_BLEND, MOST_SHEAR, MOST_TURN, MOST_SHIFT = 0.9, 0.3, torch.pi / 6, 0.45
"""At a magnitude of 1: how far an image is blended, its shear, the angle it is turned by, its shift as a share of its side."""


def autocontrast(x: Tensor, magnitude: Tensor) -> Tensor:
    """Each channel stretched from its darkest and lightest values to 0 and 255."""
    low, high = x.amin((2, 3), keepdim=True), x.amax((2, 3), keepdim=True)
    return torch.where(high > low, (x - low) * 255 / (high - low).clamp_min(1), x)


def equalise(x: Tensor, magnitude: Tensor) -> Tensor:
    """Each value replaced by how many of its channel are smaller, scaled to 255: a flat histogram."""
    value = x.long().flatten(2)
    count = torch.zeros(*value.shape[:2], 256, dtype=torch.long, device=x.device)
    count = count.scatter_add(2, value, torch.ones_like(value))
    smaller = (count.cumsum(2) - count).gather(2, value).view_as(x)
    most = smaller.amax((2, 3), keepdim=True)
    return torch.where(most > 0, 255 * smaller.to(x) / most.clamp_min(1), x)


def solarise(x: Tensor, magnitude: Tensor) -> Tensor:
    """Values above a threshold inverted."""
    return torch.where(x <= 255 * (1 - magnitude.abs()), x, 255 - x)


def posterise(x: Tensor, magnitude: Tensor) -> Tensor:
    """Up to four of the eight bits cleared."""
    unit = 2 ** (4 * magnitude.abs()).round()
    return (x / unit).floor() * unit


def brightness(x: Tensor, magnitude: Tensor) -> Tensor:
    return _blend(torch.zeros_like(x), x, magnitude)


def contrast(x: Tensor, magnitude: Tensor) -> Tensor:
    return _blend(_grey(x).mean((2, 3), keepdim=True), x, magnitude)


def colour(x: Tensor, magnitude: Tensor) -> Tensor:
    return _blend(_grey(x), x, magnitude) if x.shape[1] == 3 else x


def sharpness(x: Tensor, magnitude: Tensor) -> Tensor:
    """Blended with a smoothed image, whose border is the image's own."""
    if min(x.shape[2:]) < 3:
        return x
    kernel = torch.full((3, 3), 1 / 13, dtype=x.dtype, device=x.device)
    kernel[1, 1] = 5 / 13
    smooth = x.clone()
    smooth[:, :, 1:-1, 1:-1] = F.conv2d(x, kernel.expand(x.shape[1], 1, 3, 3), groups=x.shape[1])
    return _blend(smooth, x, magnitude)


def rotate(x: Tensor, magnitude: Tensor) -> Tensor:
    angle = MOST_TURN * magnitude.flatten()
    return _moved(x, wide=angle.cos(), across=-angle.sin(), down=angle.sin(), high=angle.cos())


def shear_x(x: Tensor, magnitude: Tensor) -> Tensor:
    return _moved(x, across=MOST_SHEAR * magnitude.flatten())


def shear_y(x: Tensor, magnitude: Tensor) -> Tensor:
    return _moved(x, down=MOST_SHEAR * magnitude.flatten())


def translate_x(x: Tensor, magnitude: Tensor) -> Tensor:
    return _moved(x, shift_x=2 * MOST_SHIFT * magnitude.flatten())


def translate_y(x: Tensor, magnitude: Tensor) -> Tensor:
    return _moved(x, shift_y=2 * MOST_SHIFT * magnitude.flatten())


OPERATIONS: tuple[Callable[[Tensor, Tensor], Tensor] | None, ...] = (
    None, autocontrast, equalise, rotate, solarise, colour, posterise, contrast, brightness, sharpness,
    shear_x, shear_y, translate_x, translate_y,
)  # fmt: skip
"""The paper's fourteen; the first leaves an image as it is."""


@dataclass(frozen=True)
class StrongViews:
    """Which operations each sample of an epoch goes through, in order: `operation` (N, 2) int64 and `magnitude` (N, 2), on
    the CPU, so that a run's pictures are the same on every device."""

    operation: Tensor
    magnitude: Tensor

    @classmethod
    def draw(cls, size: int, strength: int, generator: torch.Generator) -> "StrongViews":
        """All operations and both signs alike probable; `strength` from 0 to 30."""
        operation = torch.randint(len(OPERATIONS), (size, ROUNDS), generator=generator)
        sign = torch.randint(2, (size, ROUNDS), generator=generator) * 2 - 1
        return cls(operation, sign * strength / STRONGEST)

    def apply(self, image_BCHW: Tensor, chosen: Tensor) -> Tensor:
        """The images (bytes), of which `chosen` (B,), on the CPU, gives the rows of `operation` and `magnitude`, changed."""
        x = image_BCHW.float()
        for number in range(ROUNDS):
            operation, magnitude = self.operation[chosen, number], self.magnitude[chosen, number]
            for index, change in enumerate(OPERATIONS):
                rows = (operation == index).nonzero()[:, 0]
                if change is None or not len(rows):
                    continue
                amount, rows = magnitude[rows].view(-1, 1, 1, 1).to(x), rows.to(x.device)
                x[rows] = change(x[rows], amount).round().clamp(0, 255)
        return x.to(torch.uint8)


def _blend(other: Tensor, x: Tensor, magnitude: Tensor) -> Tensor:
    """Away from `other` for a positive magnitude, towards it for a negative one; clamping is the caller's."""
    return other + (x - other) * (1 + MOST_BLEND * magnitude)


def _grey(x: Tensor) -> Tensor:
    if x.shape[1] != 3:
        return x.mean(1, keepdim=True)
    return (x * torch.tensor(LUMA, dtype=x.dtype, device=x.device).view(1, 3, 1, 1)).sum(1, keepdim=True)


def _moved(
    x: Tensor,
    *,
    wide: Tensor | float = 1.0,
    across: Tensor | float = 0.0,
    down: Tensor | float = 0.0,
    high: Tensor | float = 1.0,
    shift_x: Tensor | float = 0.0,
    shift_y: Tensor | float = 0.0,
) -> Tensor:
    """The images read at `(wide x + across y + shift_x, down x + high y + shift_y)`, black outside; x and y in pixels from
    the centre, shifts in half sides."""
    ratio = x.shape[2] / x.shape[3]
    ones = torch.ones(len(x), dtype=x.dtype, device=x.device)
    rows = ((wide, across * ratio, shift_x), (down / ratio, high, shift_y))
    matrix = torch.stack([torch.stack([ones * value for value in row], dim=1) for row in rows], dim=1)
    grid = F.affine_grid(matrix, list(x.shape), align_corners=False)
    return F.grid_sample(x, grid, align_corners=False)
