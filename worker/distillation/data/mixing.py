"""Mixing each image of a batch with another one: mixup and CutMix.

Shapes: B batch, C channels, H height, W width.
"""

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

TRIES = 64


@dataclass(frozen=True)
class Mixing:
    """How each image is mixed with the image before it in the batch: `share` (B,) float64 is what is kept of it, `centre` (B, 2)
    the centre of the box that CutMix replaces, as shares of height and width.

    Zhang et al., "mixup", arXiv:1710.09412; Yun et al., "CutMix", arXiv:1905.04899.
    """

    kind: Literal["mixup", "cutmix"]
    share: Tensor
    centre: Tensor

    @classmethod
    def draw(cls, size: int, mixup: float, cutmix: float, generator: torch.Generator) -> "Mixing | None":
        """Draw shares from Beta(a, a), where a is `mixup` or `cutmix`, which are at most 1; if both are above 0, either is taken with
        probability 1/2. None if both are 0."""
        if not (mixup or cutmix):
            return None
        first = bool(torch.rand((), generator=generator) < 0.5) if mixup and cutmix else bool(mixup)
        share = beta(mixup if first else cutmix, size, generator)
        centre = torch.rand(size, 2, dtype=torch.float64, generator=generator)
        return cls("mixup" if first else "cutmix", share, centre)

    def apply(self, image_BCHW: Tensor) -> Tensor:
        """Mix normalised images."""
        other = image_BCHW.roll(1, 0)
        if self.kind == "mixup":
            share = self.share.to(image_BCHW).view(-1, 1, 1, 1)
            return image_BCHW * share + other * (1 - share)
        return torch.where(self._replaced(*image_BCHW.shape[2:]).to(image_BCHW.device), other, image_BCHW)

    def _replaced(self, height: int, width: int) -> Tensor:
        """The pixels of each image that CutMix replaces (B, 1, H, W) bool; a box at the border is cut off."""
        side = (1 - self.share).sqrt() / 2
        inside = []
        for extent, centre in zip((height, width), self.centre.unbind(1), strict=True):
            place = (torch.arange(extent, dtype=torch.float64) + 0.5) / extent
            inside.append((place - centre[:, None]).abs() < side[:, None])
        return (inside[0][:, :, None] & inside[1][:, None, :])[:, None]


def beta(concentration: float, size: int, generator: torch.Generator) -> Tensor:
    """Numbers (size,) float64 from Beta(a, a) with 0 < a <= 1, by Jöhnk's method (Metrika 8, 1964); 1/2 if all tries are refused."""
    drawn = torch.rand(2, TRIES, size, dtype=torch.float64, generator=generator).clamp_min(1e-300).log() / concentration
    x, y = drawn.exp()
    accepted = x + y <= 1
    logits = drawn[0] - drawn[1]
    first = accepted.int().argmax(0, keepdim=True)
    share = logits.sigmoid().gather(0, first)[0]  # x / (x + y), also where both underflow
    return torch.where(accepted.any(0), share, torch.full_like(share, 0.5))
