"""A test split made of training images, for a dataset that has none.

Shapes: N samples.
"""

import torch
from torch import Tensor

from worker.distillation.data.packed import Packed
from worker.distillation.data.resizing import at_once
from worker.distillation.data.samplers import generator

SEED = 0
FRACTION = 0.1
LEAST_IMAGES = 1000
"""Labelled images from which a test split is made unless the option says otherwise."""


def make(packed: Packed, fraction: float | None) -> None:
    """Move `fraction` of each class of `train` into `test`, the same images for the same labels; a class keeps one image.

    Nothing happens if there is a test split, if there are no labels, or if `fraction` is None and there are few images or
    the samples have second images or cameras.
    """
    label = packed.splits["train"][1]
    if "test" in packed.splits or packed.labels == "none":
        return
    if fraction is None:
        plain = not packed.privileged and not packed.retrieval
        fraction = FRACTION if len(label) >= LEAST_IMAGES and plain else 0.0
    held = _held(label, fraction)
    if not held.any():
        return
    packed.splits["train"], packed.splits["test"] = _parted_pair(packed.splits["train"], held)
    if "train" in packed.privileged:
        packed.privileged["train"], packed.privileged["test"] = _parted(packed.privileged["train"], held)
    for held_by_split in (packed.retrieval, packed.fields):
        for name, value in held_by_split.pop("train", {}).items():
            for split, part in (("train", value[~held]), ("test", value[held])):
                held_by_split.setdefault(split, {})[name] = part
    packed.made_split = {"fraction": fraction, "seed": SEED, "images": int(held.sum())}
    packed.warnings.append(
        f"there is no test split: moved {int(held.sum())} of {len(held)} images ({fraction:.0%} of each class, seed {SEED}) from"
        " `train` to `test`; set the option test_fraction to change this"
    )


def _held(label: Tensor, fraction: float) -> Tensor:
    """The samples to move (N,) bool."""
    draw = generator(SEED, "test split")
    group = label if label.ndim == 1 else torch.zeros(len(label), dtype=torch.int64)
    held = torch.zeros(len(label), dtype=torch.bool)
    for number in group.unique():
        members = (group == number).nonzero()[:, 0]
        count = min(round(fraction * len(members)), len(members) - 1)
        held[members[torch.randperm(len(members), generator=draw)[:count]]] = True
    return held


def _parted_pair(pair: tuple[Tensor, Tensor], held: Tensor) -> tuple[tuple[Tensor, Tensor], tuple[Tensor, Tensor]]:
    (train, test), (label, other) = _parted(pair[0], held), (pair[1][~held], pair[1][held])
    return (train, label), (test, other)


def _parted(image: Tensor, held: Tensor) -> tuple[Tensor, Tensor]:
    """The samples that stay, moved together in place, and a copy of those that are held."""
    test = image[held]
    kept = (~held).nonzero()[:, 0]
    count = at_once(image)
    for start in range(0, len(kept), count):
        # a sample only ever moves to an earlier place, so that no sample is lost before it is read
        image[start : start + count][: len(kept) - start] = image[kept[start : start + count]]
    return image[: len(kept)], test
