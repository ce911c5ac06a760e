"""What is drawn for an epoch: the order of the images, their shifts or scales, and their strong views."""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from worker.distillation.data import samplers
from worker.distillation.data.augmentation import Views
from worker.distillation.data.images import Images
from worker.distillation.data.scaled_crops import ScaledCrops
from worker.distillation.data.strong_views import StrongViews
from worker.distillation.data.transfers import sent

Shifts = Views | ScaledCrops
"""Changes of place, which masks, depth and boxes follow."""


@dataclass(frozen=True)
class EpochParameters:
    """`mates`: other images of its class that come with each image; `padding` of shifts, None without any; `scales`: least and most
    of scaled crops, None without any; `views`: number of different shifts of each image, None for new ones in every epoch;
    `strength` of strong views, None without any."""

    mates: int = 0
    padding: int | None = None
    scales: tuple[float, float] | None = None
    flips: bool = False
    views: int | None = None
    second_views: bool = False
    strength: int | None = None

    def round_of(self, epoch: int) -> int:
        """Which shifts an epoch shows: one of the `views`, or those of its own."""
        return epoch % self.views if self.views else epoch

    def shifts(self, count: int, seed: int, number: int, device: torch.device, which: str = "") -> Shifts | None:
        """The shifts of `count` images with this number, of the first or the `second view/`; None without any."""
        draw = samplers.generator(seed, f"{which}augmentation", number)
        if self.scales is not None:
            return ScaledCrops.draw(count, *self.scales, self.flips, draw)
        return None if self.padding is None else Views.draw(count, self.padding, self.flips, draw, device)


@dataclass(frozen=True)
class DrawnEpoch:
    """`images` (N, 1 + M), indices of N images, each with M of its class; `views` (N, 1 + M), their rows of the shifts and of the
    strong views, on the images' device and as `views_on_cpu`; `number` of the shifts."""

    images: Tensor
    views: Tensor
    views_on_cpu: Tensor
    number: int
    shifts: Shifts | None
    second_shifts: Shifts | None
    strong: StrongViews | None

    @classmethod
    def draw(cls, images: Images, p: EpochParameters, seed: int, epoch: int) -> "DrawnEpoch":
        """An epoch of a dataset, a function of seed and epoch alone."""
        chosen = views = samplers.shuffled(len(images), seed, epoch)[:, None]
        if p.mates:
            draw = samplers.generator(seed, "mates", epoch)
            chosen = torch.cat([chosen, samplers.same_class(images.label.cpu(), chosen[:, 0], p.mates, draw)], dim=1)
            views = chosen if p.views else torch.arange(chosen.numel()).view_as(chosen)
        count, number, device = len(images) if p.views else chosen.numel(), p.round_of(epoch), images.device
        strong = None
        if p.second_views and p.strength is not None:
            strong = StrongViews.draw(chosen.numel(), p.strength, samplers.generator(seed, "strong views", epoch))
        return cls(
            images=sent(chosen, device),
            views=sent(views, device),
            views_on_cpu=views,
            number=number,
            shifts=p.shifts(count, seed, number, device),
            second_shifts=p.shifts(count, seed, epoch, device, "second view/") if p.second_views else None,
            strong=strong,
        )


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
