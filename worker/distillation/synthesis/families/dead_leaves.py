"""Dead leaves: shapes that cover each other, which gives the occlusions and scales of photographs.

Lee, Mumford, Huang, "Occlusion models for natural images", 2001; as data for learning: Baradad et al., "Learning to see by
looking at noise", arXiv:2106.05963. Shapes of tensors: B images, C channels, H height, W width.
"""

import torch
from torch import Tensor

from worker.distillation.synthesis.families.canvas import Canvas, uniform
from worker.distillation.synthesis.families.shapes import masks, textured

LEAVES = 14
LARGEST, SMALLEST = 0.6, 0.08
"""Half axes of the first and of the last leaf, relative to the shorter side."""


def draw(count: int, canvas: Canvas, random: torch.Generator) -> Tensor:
    """Images (B, C, H, W) of 14 leaves, each on top of those before it and smaller."""
    image = textured(count, canvas, random)
    wide, high = canvas.width * canvas.pixel / 2, canvas.height * canvas.pixel / 2
    for index in range(LEAVES):
        size = LARGEST * (SMALLEST / LARGEST) ** (index / (LEAVES - 1))
        place = torch.stack(
            [uniform(-wide, wide, count, random=random), uniform(-high, high, count, random=random)], dim=1
        )
        covered = masks(count, canvas, place, (0.5 * size, size), random)
        image = torch.lerp(image, textured(count, canvas, random), covered)
    return image
