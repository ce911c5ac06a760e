"""Strokes: bright Bézier curves of some width on black, as pens draw.

Shapes: B images, S segments, C channels, H height, W width.
"""

import torch
from torch import Tensor

from worker.distillation.synthesis.families.canvas import Canvas, uniform

MOST = 4
"""Curves of an image; there is at least one."""
SEGMENTS = 12
"""Straight lines that a curve is drawn as."""
LEAST_WIDTH, MOST_WIDTH = 0.03, 0.13
"""Width of a curve, relative to the shorter side."""
LEAST_BOX, MOST_BOX = 0.55, 1.0
"""Side of the square that the curves are in."""
SHIFT = 0.1
EDGE = 0.5
"""Softness of an edge, in pixels."""
LARGEST_WORK = 2**22
"""Numbers of segments times pixels that are computed at once."""


def draw(count: int, canvas: Canvas, random: torch.Generator) -> Tensor:
    """Images (B, C, H, W) of one to four curves each."""
    points = _curves(count, random)
    width = uniform(LEAST_WIDTH, MOST_WIDTH, count, 1, random=random)
    shown = torch.arange(MOST) < torch.randint(1, MOST + 1, (count, 1), generator=random)
    intensity = uniform(0.8, 1.0, count, MOST, random=random) * shown
    colour = canvas.colours(count, random, darkest=0.8)
    each = max(1, LARGEST_WORK // (MOST * SEGMENTS * canvas.height * canvas.width))
    parts = zip(points.split(each), width.split(each), intensity.split(each), strict=True)
    return torch.cat([_coverage(*part, canvas) for part in parts]) * colour


def _curves(count: int, random: torch.Generator) -> Tensor:
    """Points (B, curve, SEGMENTS + 1, 2) on cubic Bézier curves."""
    box = uniform(LEAST_BOX, MOST_BOX, count, 1, 1, 1, random=random)
    centre = uniform(-SHIFT, SHIFT, count, 1, 1, 2, random=random)
    control = (torch.rand(count, MOST, 4, 2, generator=random) - 0.5) * box + centre
    t = torch.linspace(0, 1, SEGMENTS + 1)
    basis = torch.stack([(1 - t) ** 3, 3 * t * (1 - t) ** 2, 3 * t**2 * (1 - t), t**3], dim=1)
    return basis @ control


def _coverage(points: Tensor, width: Tensor, intensity: Tensor, canvas: Canvas) -> Tensor:
    """The brightest curve at each pixel (B, 1, H, W)."""
    start, end = points[:, :, :-1].flatten(1, 2), points[:, :, 1:].flatten(1, 2)
    distance = distances(canvas.places(), start, end).unflatten(1, (MOST, SEGMENTS)).amin(dim=2)
    edge = EDGE * canvas.pixel
    covered = ((width[:, :, None, None] / 2 - distance) / edge).sigmoid()
    return (covered * intensity[:, :, None, None]).amax(dim=1, keepdim=True)


def distances(places_2HW: Tensor, start_BS2: Tensor, end_BS2: Tensor) -> Tensor:
    """Distance (B, S, H, W) of each place from each line segment."""
    line = end_BS2 - start_BS2
    length = line.square().sum(dim=2).clamp_min(1e-12)[:, :, None, None]
    away = places_2HW - start_BS2[:, :, :, None, None]
    along = (torch.einsum("bsd,bsdhw->bshw", line, away) / length).clamp(0, 1)
    return (away - along[:, :, None] * line[:, :, :, None, None]).square().sum(dim=2).sqrt()
