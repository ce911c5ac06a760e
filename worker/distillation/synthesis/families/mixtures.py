"""Mixtures: strokes or shapes on a darker background of noise or dead leaves.

Shapes: B images, C channels, H height, W width.
"""

from collections.abc import Callable

import torch
from torch import Tensor

from worker.distillation.synthesis.families import dead_leaves, noise, shapes, strokes
from worker.distillation.synthesis.families.canvas import Canvas, uniform

DARKEST, BRIGHTEST = 0.1, 0.7
"""Factor of the background."""
Draw = Callable[[int, Canvas, torch.Generator], Tensor]


def draw(count: int, canvas: Canvas, random: torch.Generator) -> Tensor:
    """Images (B, C, H, W): at each pixel the brighter of foreground and background."""
    behind = _either(noise.draw, dead_leaves.draw, count, canvas, random)
    front = _either(strokes.draw, shapes.draw, count, canvas, random)
    return torch.maximum(front, behind * uniform(DARKEST, BRIGHTEST, count, 1, 1, 1, random=random))


def _either(one: Draw, other: Draw, count: int, canvas: Canvas, random: torch.Generator) -> Tensor:
    """Each image drawn by one of the two."""
    first = torch.rand(count, generator=random) < 0.5
    image = torch.empty(count, canvas.channels, canvas.height, canvas.width)
    for chosen, family in ((first, one), (~first, other)):
        if chosen.any():
            image[chosen] = family(int(chosen.sum()), canvas, random)
    return image
