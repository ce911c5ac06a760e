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
    width = uniform(LEAST_WIDTH, MOST_WIDTH, count, 1, random=random).expand(-1, MOST)
    shown = torch.arange(MOST) < torch.randint(1, MOST + 1, (count, 1), generator=random)
    intensity = uniform(0.8, 1.0, count, MOST, random=random)
    colour = canvas.colours(count, random, darkest=0.8)
    each = max(1, LARGEST_WORK // (SEGMENTS * canvas.height * canvas.width))
    parts = zip(points[shown].split(each), width[shown].split(each), intensity[shown].split(each), strict=True)
    covered = torch.zeros(count, MOST, canvas.height, canvas.width)
    covered[shown] = torch.cat([_coverage(*part, canvas) for part in parts])
    return covered.amax(dim=1, keepdim=True) * colour


def _curves(count: int, random: torch.Generator) -> Tensor:
    """Points (B, curve, SEGMENTS + 1, 2) on cubic Bézier curves."""
    box = uniform(LEAST_BOX, MOST_BOX, count, 1, 1, 1, random=random)
    centre = uniform(-SHIFT, SHIFT, count, 1, 1, 2, random=random)
    control = (torch.rand(count, MOST, 4, 2, generator=random) - 0.5) * box + centre
    t = torch.linspace(0, 1, SEGMENTS + 1)
    basis = torch.stack([(1 - t) ** 3, 3 * t * (1 - t) ** 2, 3 * t**2 * (1 - t), t**3], dim=1)
    return basis @ control


def _coverage(points: Tensor, width: Tensor, intensity: Tensor, canvas: Canvas) -> Tensor:
    """The brightness (N, H, W) of N curves, given by their points (N, SEGMENTS + 1, 2), widths and intensities (N,)."""
    nearest = squared_distances(canvas.places(), points[:, :-1], points[:, 1:]).amin(dim=1)
    edge = EDGE * canvas.pixel
    return ((width[:, None, None] / 2 - nearest.sqrt()) / edge).sigmoid() * intensity[:, None, None]


def squared_distances(places_2HW: Tensor, start_BS2: Tensor, end_BS2: Tensor) -> Tensor:
    """Squared distance (B, S, H, W) of each place from each line segment; places are a grid of x and y."""
    line = end_BS2 - start_BS2
    length = line.square().sum(dim=2)[:, :, None, None].clamp_min(1e-12)
    x = places_2HW[0, 0] - start_BS2[:, :, 0, None]  # (B, S, W)
    y = places_2HW[1, :, 0] - start_BS2[:, :, 1, None]  # (B, S, H)
    dot = (line[:, :, 0, None] * x)[:, :, None] + (line[:, :, 1, None] * y)[..., None]
    along = (dot / length).clamp_(0, 1)
    away = x.square()[:, :, None] + y.square()[..., None]
    return away.add_((along * length).sub_(dot, alpha=2).mul_(along)).clamp_min_(0)
