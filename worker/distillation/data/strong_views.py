"""Strong views: the random operations of RandAugment and TrivialAugment, batched on the device that holds the images.

Cubuk et al., "RandAugment: practical automated data augmentation with a reduced search space", arXiv:1909.13719; Müller and
Hutter, "TrivialAugment", arXiv:2103.10158. Images are
(B, C, H, W) with values from 0 to 255. A magnitude (B, 1, 1, 1) is from -1 to 1; its sign is the direction, if an operation
has two. The paper does not define a magnitude of 1; the values here follow common implementations.
"""

from collections.abc import Callable
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from worker.distillation.data.images import LUMA
from worker.distillation.data.transfers import sent

STRONGEST = 30
ROUNDS = 2
MOST_BLEND = 0.9
"""Blending factor at a magnitude of 1."""
MOST_SHEAR = 0.3
"""Shear at a magnitude of 1."""
MOST_TURN = torch.pi / 6
"""Angle of rotation at a magnitude of 1, in radians."""
MOST_SHIFT = 0.45
"""Translation at a magnitude of 1, as a share of the image's side."""


def autocontrast(x: Tensor, magnitude: Tensor) -> Tensor:
    """Stretch each channel linearly, so that its values reach from 0 to 255."""
    low, high = x.amin((2, 3), keepdim=True), x.amax((2, 3), keepdim=True)
    return torch.where(high > low, (x - low) * 255 / (high - low).clamp_min(1), x)


def equalise(x: Tensor, magnitude: Tensor) -> Tensor:
    """Flatten the histogram: replace each value by the number of smaller values in its channel, scaled to 255."""
    value = x.long().flatten(2)
    count = torch.zeros(*value.shape[:2], 256, dtype=torch.long, device=x.device)
    count = count.scatter_add(2, value, torch.ones_like(value))
    smaller = (count.cumsum(2) - count).gather(2, value).view_as(x)
    most = smaller.amax((2, 3), keepdim=True)
    return torch.where(most > 0, 255 * smaller.to(x) / most.clamp_min(1), x)


def solarise(x: Tensor, magnitude: Tensor) -> Tensor:
    """Invert values above a threshold."""
    return torch.where(x <= 255 * (1 - magnitude.abs()), x, 255 - x)


def posterise(x: Tensor, magnitude: Tensor) -> Tensor:
    """Clear up to four of the eight bits."""
    unit = 2 ** (4 * magnitude.abs()).round()
    return (x / unit).floor() * unit


def brightness(x: Tensor, magnitude: Tensor) -> Tensor:
    return _blend(torch.zeros_like(x), x, magnitude)


def contrast(x: Tensor, magnitude: Tensor) -> Tensor:
    return _blend(_grey(x).mean((2, 3), keepdim=True), x, magnitude)


def colour(x: Tensor, magnitude: Tensor) -> Tensor:
    return _blend(_grey(x), x, magnitude) if x.shape[1] == 3 else x


def sharpness(x: Tensor, magnitude: Tensor) -> Tensor:
    """Blend with a smoothed image; the border pixels are not smoothed."""
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
"""The paper's fourteen operations; the first is the identity."""
WIDE: dict[Callable[[Tensor, Tensor], Tensor], float] = {
    rotate: 135 / 30, shear_x: 0.99 / MOST_SHEAR, shear_y: 0.99 / MOST_SHEAR, posterise: 6 / 4,
    brightness: 0.99 / MOST_BLEND, contrast: 0.99 / MOST_BLEND, colour: 0.99 / MOST_BLEND, sharpness: 0.99 / MOST_BLEND,
}  # fmt: skip
"""The largest magnitudes of TrivialAugment's wide space (its table 1), as multiples of those here."""
WIDE_SHIFT = 32
"""Its largest translation, in pixels."""


@dataclass(frozen=True)
class StrongViews:
    """The operations applied to each sample of an epoch, in order: `operation` (N, R) int64 and `magnitude` (N, R), on the
    CPU, so that a run sees the same images on every device. `wide`: magnitudes are those of TrivialAugment."""

    operation: Tensor
    magnitude: Tensor
    wide: bool = False

    @classmethod
    def draw(cls, size: int, strength: int, generator: torch.Generator) -> "StrongViews":
        """Draw operations and signs uniformly; `strength` is from 0 to 30."""
        operation = torch.randint(len(OPERATIONS), (size, ROUNDS), generator=generator)
        sign = torch.randint(2, (size, ROUNDS), generator=generator) * 2 - 1
        return cls(operation, sign * strength / STRONGEST)

    @classmethod
    def draw_trivial(cls, size: int, generator: torch.Generator) -> "StrongViews":
        """Draw one operation, its magnitude from 31 values, and its sign uniformly."""
        operation = torch.randint(len(OPERATIONS), (size, 1), generator=generator)
        sign = torch.randint(2, (size, 1), generator=generator) * 2 - 1
        strength = torch.randint(STRONGEST + 1, (size, 1), generator=generator)
        return cls(operation, sign * strength / STRONGEST, wide=True)

    def apply(self, image_BCHW: Tensor, chosen: Tensor) -> Tensor:
        """Transform uint8 images; `chosen` (B,), on the CPU, gives their rows of `operation` and `magnitude`."""
        x = image_BCHW.float()
        for number in range(self.operation.shape[1]):
            operation, magnitude = self.operation[chosen, number], self.magnitude[chosen, number]
            for index, change in enumerate(OPERATIONS):
                rows = (operation == index).nonzero()[:, 0]
                if change is None or not len(rows):
                    continue
                scale = _widened(change, x.shape) if self.wide else 1.0
                amount = scale * sent(magnitude[rows].view(-1, 1, 1, 1).to(x.dtype), x.device)
                rows = sent(rows, x.device)
                x[rows] = change(x[rows], amount).round().clamp(0, 255)
        return x.to(torch.uint8)


def _widened(change: Callable[[Tensor, Tensor], Tensor], shape: torch.Size) -> float:
    """The largest magnitude of an operation in TrivialAugment."""
    if change in (translate_x, translate_y):
        return WIDE_SHIFT / (MOST_SHIFT * shape[3 if change is translate_x else 2])
    return WIDE.get(change, 1.0)


def _blend(other: Tensor, x: Tensor, magnitude: Tensor) -> Tensor:
    """Move away from `other` for a positive magnitude, towards it for a negative one; the caller clamps."""
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
    """Sample the images at `(wide x + across y + shift_x, down x + high y + shift_y)`, black outside; x and y in pixels from
    the centre, shifts in half sides."""
    ratio = x.shape[2] / x.shape[3]
    ones = torch.ones(len(x), dtype=x.dtype, device=x.device)
    rows = ((wide, across * ratio, shift_x), (down / ratio, high, shift_y))
    matrix = torch.stack([torch.stack([ones * value for value in row], dim=1) for row in rows], dim=1)
    grid = F.affine_grid(matrix, list(x.shape), align_corners=False)
    return F.grid_sample(x, grid, align_corners=False)
