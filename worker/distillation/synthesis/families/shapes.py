"""Shapes: filled ellipses, rectangles and diamonds with a texture on black, some images mirrored.

Shapes of tensors: B images, C channels, H height, W width.
"""

import math

import torch
from torch import Tensor

from worker.distillation.synthesis.families.canvas import Canvas, uniform
from worker.distillation.synthesis.families.noise import SLOWEST, STEEPEST, fields

MOST = 4
"""Shapes of an image; there is at least one."""
POWERS = torch.tensor([1.0, 2.0, 8.0])
"""Powers of superellipses: diamond, ellipse, nearly a rectangle."""
LEAST_SIZE, MOST_SIZE = 0.08, 0.45
"""Half axes, relative to the shorter side."""
MIRRORED = 0.4
EDGE = 0.5
MOST_TEXTURE = 0.4
"""Largest part of a colour that its texture changes."""


def draw(count: int, canvas: Canvas, random: torch.Generator) -> Tensor:
    """Images (B, C, H, W) of one to four shapes each."""
    number = torch.randint(1, MOST + 1, (count, 1, 1, 1), generator=random)
    image = torch.zeros(count, canvas.channels, canvas.height, canvas.width)
    for index in range(MOST):
        place = uniform(-0.3, 0.3, count, 2, random=random)
        covered = masks(count, canvas, place, (LEAST_SIZE, MOST_SIZE), random) * (index < number)
        image = torch.lerp(image, textured(count, canvas, random, darkest=0.3), covered)
    mirrored = torch.rand(count, 1, 1, 1, generator=random) < MIRRORED
    left = canvas.places()[0] < 0
    return torch.where(mirrored & ~left, image.flip(3), image)


def masks(count: int, canvas: Canvas, place_B2: Tensor, sizes: tuple[float, float], random: torch.Generator) -> Tensor:
    """What one rotated superellipse of each image covers (B, 1, H, W), with a soft edge."""
    angle = uniform(0, math.pi, count, 1, 1, random=random)
    half = uniform(*sizes, count, 2, 1, 1, random=random)
    power = POWERS[torch.randint(len(POWERS), (count,), generator=random)][:, None, None]
    x, y = (canvas.places() - place_B2[:, :, None, None]).unbind(dim=1)
    turned = torch.stack([x * angle.cos() + y * angle.sin(), y * angle.cos() - x * angle.sin()], dim=1)
    radius = ((turned / half).abs() ** power[:, None]).sum(dim=1) ** (1 / power)
    edge = EDGE * canvas.pixel / half.amin(dim=1)
    return ((1 - radius) / edge).sigmoid()[:, None]


def textured(count: int, canvas: Canvas, random: torch.Generator, darkest: float = 0.0) -> Tensor:
    """A colour for each image with a texture of noise (B, C, H, W)."""
    decay = uniform(SLOWEST, STEEPEST, count, random=random)
    strength = uniform(0, MOST_TEXTURE, count, 1, 1, 1, random=random)
    texture = strength * fields(count, 1, canvas, decay, random)
    return (canvas.colours(count, random, darkest) * (1 + texture)).clamp(0, 1)
