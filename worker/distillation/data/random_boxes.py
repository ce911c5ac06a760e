"""Random boxes in images, by a share of the area and an aspect ratio.

Shapes: B batch, T tries. A box is top, left, height and width, in pixels.
"""

import math
from dataclasses import dataclass

import torch
from torch import Tensor

TRIES = 10


@dataclass(frozen=True)
class BoxDraws:
    """Random numbers for one box in each image: `area` and `ratio` (B, T), `place` (B, 2), all uniform in [0, 1), float64."""

    area: Tensor
    ratio: Tensor
    place: Tensor

    @classmethod
    def draw(cls, size: int, generator: torch.Generator) -> "BoxDraws":
        """Numbers for `size` images."""
        drawn = torch.rand(size, 2 * TRIES + 2, dtype=torch.float64, generator=generator)
        return cls(drawn[:, :TRIES], drawn[:, TRIES:-2], drawn[:, -2:])

    def at(self, rows: Tensor | slice) -> "BoxDraws":
        """The numbers of these images."""
        return BoxDraws(self.area[rows], self.ratio[rows], self.place[rows])

    def boxes(self, sizes_B2: Tensor, areas: tuple[float, float], ratios: tuple[float, float]) -> tuple[Tensor, Tensor]:
        """`(boxes, found)`: (B, 4) float64, and (B,) whether one of the tries lies within the image.

        Args:
            sizes_B2: height and width of each image.
            areas: least and largest share of the image's area.
            ratios: least and largest ratio of width to height, drawn uniformly on a logarithmic scale.
        """
        size = sizes_B2.double().expand(len(self.area), 2)
        area = size.prod(1, keepdim=True) * (areas[0] + self.area * (areas[1] - areas[0]))
        low, high = math.log(ratios[0]), math.log(ratios[1])
        ratio = (low + self.ratio * (high - low)).exp()
        height, width = (area / ratio).sqrt().round(), (area * ratio).sqrt().round()
        fits = (height >= 1) & (width >= 1) & (height <= size[:, :1]) & (width <= size[:, 1:])
        first = fits.int().argmax(1, keepdim=True)
        extent = torch.cat([height.gather(1, first), width.gather(1, first)], dim=1)
        corner = (self.place * (size - extent + 1)).floor().clamp(min=0)
        return torch.cat([corner, extent], dim=1), fits.any(1)


def resized_crops(draws: BoxDraws, sizes_B2: Tensor, least_area: float) -> Tensor:
    """The boxes (B, 4) of random resized crops: a share of the area from `least_area` to 1, an aspect ratio from 3/4 to 4/3.

    If no try lies within the image, the largest central box whose aspect ratio is allowed. As in torchvision's
    `RandomResizedCrop` (Szegedy et al., arXiv:1409.4842).
    """
    ratios = (3 / 4, 4 / 3)
    boxes, found = draws.boxes(sizes_B2, (least_area, 1.0), ratios)
    size = sizes_B2.double().expand(len(boxes), 2)
    tall = torch.minimum(size[:, 0], (size[:, 1] / ratios[0]).round())
    wide = torch.minimum(size[:, 1], (size[:, 0] * ratios[1]).round())
    central = torch.stack([((size[:, 0] - tall) / 2).floor(), ((size[:, 1] - wide) / 2).floor(), tall, wide], dim=1)
    return torch.where(found[:, None], boxes, central)
