"""Random scaling, cropping and mirroring of images together with their masks, depth and boxes.

Shapes: N samples of an epoch, B batch, C channels, H height, W width.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from worker.distillation.data.fields import Size, windowed

LEAST_SCALE, MOST_SCALE = 0.75, 1.5


@dataclass(frozen=True)
class ScaledCrops:
    """The scale, place and flip of each sample of an epoch: `scale` (N,), `place` (N, 2) from 0 to 1, rows first, and `flip` (N,)
    bool. Drawn on the CPU, so that a run sees the same images on every device.

    An image that is scaled up is cropped at its place; one that is scaled down is put there, and padded: images with black, fields
    with the value of their kind.
    """

    scale: Tensor
    place: Tensor
    flip: Tensor

    @classmethod
    def draw(cls, count: int, least: float, most: float, flips: bool, generator: torch.Generator) -> "ScaledCrops":
        """Draw the logarithm of the scale, and the place, uniformly. If `flips`, mirror each image with probability 1/2."""
        drawn = torch.rand(count, 3, generator=generator)
        scale = least * (most / least) ** drawn[:, 0]
        flip = torch.randint(2, (count,), generator=generator).bool()
        return cls(scale, drawn[:, 1:], flip if flips else torch.zeros(count, dtype=torch.bool))

    def windows(self, chosen: Tensor, size: Size) -> Tensor:
        """The window (B, 4) of each image that becomes the whole: top, left, height, width in pixels, float32."""
        rows = chosen.cpu()
        whole = torch.tensor(size, dtype=torch.float32)
        extent = whole / self.scale[rows, None]
        return torch.cat([(whole - extent) * self.place[rows], extent], dim=1)

    def apply(self, image_BCHW: Tensor, chosen: Tensor) -> Tensor:
        """Scale, crop and mirror uint8 images, bilinear; `chosen` (B,) gives their rows."""
        height, width = image_BCHW.shape[2:]
        window = self.windows(chosen, (height, width)).to(image_BCHW.device)
        sign = torch.where(self.flip[chosen.cpu()].to(window.device), -1.0, 1.0)
        zero = torch.zeros_like(sign)
        tall, wide = window[:, 2] / height, window[:, 3] / width
        down = 2 * (window[:, 0] + window[:, 2] / 2) / height - 1
        across = 2 * (window[:, 1] + window[:, 3] / 2) / width - 1
        rows = (torch.stack([sign * wide, zero, across], dim=1), torch.stack([zero, tall, down], dim=1))
        grid = F.affine_grid(torch.stack(rows, dim=1), list(image_BCHW.shape), align_corners=False)
        moved = F.grid_sample(image_BCHW.float(), grid, align_corners=False)
        return moved.round_().clamp_(0, 255).to(torch.uint8)

    def apply_fields(self, fields: Mapping[str, Tensor], chosen: Tensor, size: Size) -> dict[str, Tensor]:
        """The fields of these samples, moved as their images. Depth is divided by the scale: what looks larger is nearer."""
        moved = windowed(fields, self.windows(chosen, size), self.flip[chosen.cpu()], size)
        if "depth" in moved:
            moved["depth"] = moved["depth"] / self.scale[chosen.cpu()].to(moved["depth"].device)[:, None, None]
        return moved
