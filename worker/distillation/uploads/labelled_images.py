"""A few labelled images of a dataset, by which a teacher is recognised and measured."""

import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from torch import Tensor

from worker.distillation.contract import InputContract
from worker.distillation.contract_check.class_names import other_order, partly_shared
from worker.distillation.data.images import fit
from worker.distillation.data.pixels import Photographs
from worker.distillation.data.shards import FIELD, LIST, read_list
from worker.distillation.errors import Problem, SpecError
from worker.distillation.wording import counted

MOST = 2048
LEAST = 50
PHOTOGRAPHS, PHOTOGRAPH_SIDE = 512, 224
"""How many photographs are read, and the height and width of their centres."""
MOST_NUMBERS = 2**27
"""Numbers of all images together; of larger images there are fewer."""
LEAST_TESTED = 1000
"""From so many images on, the split `test` is used: the teacher was hardly trained on it."""


@dataclass(frozen=True)
class LabelledImages:
    """Images (N, C, H, W) uint8 in random order, and the number (N,) of the class of each."""

    image: Tensor
    label: Tensor
    class_names: tuple[str, ...]
    split: str

    @property
    def size(self) -> tuple[int, int]:
        return int(self.image.shape[2]), int(self.image.shape[3])

    @property
    def channels(self) -> int:
        return int(self.image.shape[1])

    @property
    def commonest(self) -> float:
        """The share of the commonest class."""
        return float(self.label.bincount().max()) / len(self.label)

    @property
    def named(self) -> bool:
        """Whether the classes have names that are not only numbers."""
        return bool(self.class_names) and not all(map(str.isdecimal, self.class_names))

    def fitted(self, contract: InputContract) -> "LabelledImages":
        """The same with a contract's channels and size."""
        return replace(self, image=fit(self.image, contract))

    def in_order(self, teacher: Sequence[str]) -> "LabelledImages":
        """The same with the numbers that the teacher gives the classes, if both name the same ones.

        Raises:
            SpecError: only some names are the same.
        """
        if differ := partly_shared(self.class_names, teacher):
            words = f"shares only some class names with the teacher: {differ}"
            raise SpecError(
                [Problem("/dataset", words)], "Name the same classes on both sides, or leave `class_names` out."
            )
        order = other_order(self.class_names, teacher)
        return self if order is None else replace(self, label=torch.tensor(order)[self.label])

    def check_classes(self, classes: int) -> None:
        """Raises: SpecError: there are more classes than a teacher tells apart."""
        if (most := int(self.label.max())) >= classes:
            words = f"has labels up to {most}, and the network tells {classes} classes apart (0 to {classes - 1})"
            raise SpecError(
                [Problem("/dataset", words)], "Give a dataset with the classes that the teacher was trained on."
            )


def sample(dataset: Path) -> LabelledImages:
    """At most 2048 images of a canonical dataset, read one by one, so that memory is bounded whatever its size.

    Raises:
        SpecError: the dataset does not name one class for each image, or has too few images.
    """
    with safe_open(dataset, framework="pt") as file:
        split = _split(file)
        label = file.get_tensor(f"{split}.label")
        names = json.loads((file.metadata() or {}).get("class_names", "[]"))
        draw = torch.Generator().manual_seed(0)
        order = torch.randperm(len(label), generator=draw)
        if f"{split}.{FIELD}" in set(file.keys()):
            chosen = order[:PHOTOGRAPHS]
            return LabelledImages(_photographs(file, split, dataset, chosen), label[chosen], tuple(names), split)
        image = file.get_slice(f"{split}.image")
        numbers = torch.tensor(image.get_shape()[1:]).prod().item()
        chosen = order[: max(LEAST, min(MOST, int(MOST_NUMBERS // numbers)))]
        in_order = chosen.sort()
        read = torch.cat([image[place : place + 1] for place in in_order.values.tolist()])
        back = in_order.indices.argsort()
    return LabelledImages(read[back], label[chosen], tuple(names), split)


def _photographs(file: Any, split: str, dataset: Path, chosen: Tensor) -> Tensor:
    """The centres of some photographs (N, 3, 224, 224)."""
    size = (PHOTOGRAPH_SIDE, PHOTOGRAPH_SIDE)
    contract = InputContract(3, *size, (0.0,) * 3, (1.0,) * 3)
    shards = read_list(file.get_tensor(LIST))
    return Photographs.of(file.get_tensor(f"{split}.{FIELD}"), dataset.parent, shards, contract, "cpu")[chosen]


def _split(file: Any) -> str:
    """The split to read: `test` if it is large, else `train`.

    Raises:
        SpecError: there are no labels that name one class for each image, or too few.
    """
    names = set(file.keys())
    counts = {}
    for split in ("test", "train"):
        if f"{split}.label" in names and len(shape := file.get_slice(f"{split}.label").get_shape()) == 1:
            counts[split] = shape[0]
    if not counts:
        words = "does not name one class for each image, by which a teacher could be recognised and measured"
        raise SpecError(
            [Problem("/dataset", words)], "Give a dataset with labels, or describe the network and its input."
        )
    best = "test" if counts.get("test", 0) >= LEAST_TESTED else max(counts, key=lambda each: counts[each])
    if counts[best] < LEAST:
        words = "has {n} labelled image[s]; at least {least} are needed to recognise or measure a teacher"
        words = counted(counts[best], words, least=LEAST)
        raise SpecError([Problem("/dataset", words)], "Give a dataset with more images.")
    return best
