"""The usual ways to make numbers of pixels, by name.

Shapes: N images, C channels, H height, W width.
"""

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from worker.distillation.contract import InputContract
from worker.distillation.data.packed import statistics

GREY: dict[str, tuple[tuple[float, ...], tuple[float, ...]]] = {
    "MNIST": ((0.1307,), (0.3081,)),
    "Fashion-MNIST": ((0.2860,), (0.3530,)),
    "ImageNet": ((0.449,), (0.226,)),
}
COLOUR: dict[str, tuple[tuple[float, ...], tuple[float, ...]]] = {
    "ImageNet": ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)),
    "CIFAR-10": ((0.4914, 0.4822, 0.4465), (0.2470, 0.2435, 0.2616)),
    "CIFAR-100": ((0.5071, 0.4865, 0.4409), (0.2673, 0.2564, 0.2762)),
}
"""Mean and standard deviation of the training images of well-known datasets, white = 1."""
WIDE = 0.02
"""A smaller std gives numbers up to 50 and more."""
SAME = 0.01
"""Two normalisations count as one if no mean and no std differ by more than this, relative to the std."""


@dataclass(frozen=True)
class Normalisation:
    """`(pixel / 255 - mean) / std` per channel; before that, perhaps, the channels reversed and black and white exchanged."""

    name: str
    mean: tuple[float, ...]
    std: tuple[float, ...]
    inverted: bool = False
    reversed: bool = False

    def apply(self, image_NCHW: Tensor) -> Tensor:
        """The input of the network (N, C, H, W) float32 from uint8 images."""
        x = image_NCHW.float() / 255
        if self.reversed:
            x = x.flip(1)
        if self.inverted:
            x = 1 - x
        mean, std = (torch.tensor(values, device=x.device).view(-1, 1, 1) for values in (self.mean, self.std))
        return (x - mean) / std

    @property
    def is_plain(self) -> bool:
        """Whether mean and std of an input contract can say it."""
        return not (self.inverted or self.reversed)

    @property
    def is_wide(self) -> bool:
        """Whether numbers are as large as those of pixels from 0 to 255, with which students train badly."""
        return min(self.std) < WIDE

    def same(self, other: "Normalisation") -> bool:
        """Whether two normalisations give nearly the same numbers."""
        if (self.inverted, self.reversed) != (other.inverted, other.reversed):
            return False
        pairs = zip((*self.mean, *self.std), (*other.mean, *other.std), (*self.std, *self.std), strict=True)
        return all(abs(one - two) <= SAME * scale for one, two, scale in pairs)


def declared(contract: InputContract) -> Normalisation:
    """The normalisation that an input contract says."""
    return Normalisation("declared", tuple(contract.mean), tuple(contract.std))


def usual(image_NCHW: Tensor) -> list[Normalisation]:
    """The usual plain normalisations for images of so many channels, those of these uint8 images themselves among them."""
    channels = image_NCHW.shape[1]
    found = [
        _repeated("0 to 1", 0.0, 1.0, channels),
        _repeated("-1 to 1", 0.5, 0.5, channels),
        *(Normalisation(name, *pair) for name, pair in {1: GREY, 3: COLOUR}.get(channels, {}).items()),
        own(image_NCHW),
        _repeated("0 to 255", 0.0, 1 / 255, channels),
    ]
    return distinct(found)


def altered(found: list[Normalisation]) -> list[Normalisation]:
    """The same with black and white exchanged, and for colour images with the channels reversed (BGR)."""
    inverted = [replace(each, name=f"{each.name}, inverted", inverted=True) for each in found]
    colour = [each for each in found if len(each.mean) == 3]
    backwards = [replace(each, name=f"{each.name}, BGR", reversed=True) for each in colour]
    return [*inverted, *backwards]


def distinct(found: list[Normalisation]) -> list[Normalisation]:
    """Each normalisation once, under its first name."""
    kept: list[Normalisation] = []
    for each in found:
        if not any(each.same(other) for other in kept):
            kept.append(each)
    return kept


def _repeated(name: str, mean: float, std: float, channels: int) -> Normalisation:
    return Normalisation(name, (mean,) * channels, (std,) * channels)


def own(image_NCHW: Tensor) -> Normalisation:
    """By the images' own mean and std; a channel that never changes counts as std 1."""
    means, stds = statistics(image_NCHW)
    mean = tuple(round(value, 4) for value in means)
    return Normalisation("these images' own", mean, tuple(max(round(value or 1.0, 4), 1e-4) for value in stds))
