"""What is drawn for an epoch: the order of the images, their shifts and their strong views."""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from worker.distillation.data import samplers
from worker.distillation.data.augmentation import Views
from worker.distillation.data.images import Images
from worker.distillation.data.strong_views import StrongViews


@dataclass(frozen=True)
class EpochParameters:
    """`mates`: other images of its class that come with each image; `padding` of shifts, None without any; `strength` of strong
    views, None without any."""

    mates: int = 0
    padding: int | None = None
    flips: bool = False
    second_views: bool = False
    strength: int | None = None


@dataclass(frozen=True)
class DrawnEpoch:
    """`images` (N, 1 + M), indices of N images, each with M of its class; `views` (N, 1 + M), their rows of the shifts and of the
    strong views."""

    images: Tensor
    views: Tensor
    shifts: Views | None
    second_shifts: Views | None
    strong: StrongViews | None

    @classmethod
    def draw(cls, images: Images, p: EpochParameters, seed: int, epoch: int) -> "DrawnEpoch":
        """An epoch of a dataset, a function of seed and epoch alone."""
        chosen = views = samplers.shuffled(len(images), seed, epoch)[:, None]
        if p.mates:
            draw = samplers.generator(seed, "mates", epoch)
            chosen = torch.cat([chosen, samplers.same_class(images.label.cpu(), chosen[:, 0], p.mates, draw)], dim=1)
            views = torch.arange(chosen.numel()).view_as(chosen)
        size = chosen.numel()

        def shifts(which: str) -> Views | None:
            if p.padding is None or (which and not p.second_views):
                return None
            draw = samplers.generator(seed, f"{which}augmentation", epoch)
            return Views.draw(size, p.padding, p.flips, draw, images.device)

        strong = None
        if p.second_views and p.strength is not None:
            strong = StrongViews.draw(size, p.strength, samplers.generator(seed, "strong views", epoch))
        placed = chosen.to(images.device), views.to(images.device)
        return cls(*placed, shifts(""), shifts("second view/"), strong)


class Epochs:
    """The epochs of the batches that have begun, drawn once each."""

    def __init__(self, draw: Callable[[int], DrawnEpoch]):
        self._draw = draw
        self._drawn: dict[int, DrawnEpoch] = {}

    def at(self, epoch: int) -> DrawnEpoch:
        if epoch not in self._drawn:
            self._drawn = {number: kept for number, kept in self._drawn.items() if abs(number - epoch) <= 1}
            self._drawn[epoch] = self._draw(epoch)
        return self._drawn[epoch]
