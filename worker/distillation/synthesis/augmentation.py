"""Random affine views of synthetic images.

Shapes: B batch, C channels, H height, W width.
"""

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from worker.distillation.data.transfers import sent

ROTATION = math.radians(15)
SCALE = 0.15
SHEAR = 0.15
SHIFT = 0.1


def random_affine(image_BCHW: Tensor, random: torch.Generator) -> Tensor:
    """Each image rotated by up to 15 degrees, scaled by up to 15 % along each axis, sheared by up to 0.15 and
    shifted by up to 10 % of its size, all uniform; bilinear, with border padding. `random` is a generator on the
    CPU."""
    batch, _, height, width = image_BCHW.shape
    angle, wide, high, shear, right, down = (2 * torch.rand(6, batch, generator=random) - 1).unbind()
    rotation = matrix(
        torch.cos(angle * ROTATION),
        -torch.sin(angle * ROTATION),
        torch.sin(angle * ROTATION),
        torch.cos(angle * ROTATION),
    )
    aspect = torch.tensor(width / height).expand(batch)
    square = matrix(aspect, torch.zeros(batch), torch.zeros(batch), torch.ones(batch))
    stretch = matrix(1 + SCALE * wide, SHEAR * shear, torch.zeros(batch), 1 + SCALE * high)
    linear_B22 = square.inverse() @ rotation @ stretch @ square
    shift_B2 = 2 * SHIFT * torch.stack([right, down], dim=1)
    theta_B23 = sent(torch.cat([linear_B22, shift_B2.unsqueeze(2)], dim=2), image_BCHW.device)
    grid = F.affine_grid(theta_B23, list(image_BCHW.shape), align_corners=False)
    return F.grid_sample(image_BCHW, grid, mode="bilinear", padding_mode="border", align_corners=False)


def random_roll(image_BCHW: Tensor, pixels: int, flip: bool, random: torch.Generator) -> Tensor:
    """The batch rolled by up to `pixels` along each axis: what leaves on one side comes back on the other. With
    `flip`, it is also mirrored left to right with probability 0.5."""
    down, right = torch.randint(-pixels, pixels + 1, (2,), generator=random).tolist()
    view = image_BCHW.roll((down, right), dims=(2, 3))
    return view.flip(3) if flip and torch.rand((), generator=random).item() < 0.5 else view


def matrix(a: Tensor, b: Tensor, c: Tensor, d: Tensor) -> Tensor:
    """Matrices (B, 2, 2) with rows (a, b) and (c, d), each (B,)."""
    return torch.stack([a, b, c, d], dim=1).unflatten(1, (2, 2))
