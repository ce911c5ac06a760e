"""The labels of each pixel: masks of classes, and depth.

Shapes: N samples, H height, W width.
"""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from worker.distillation.data.fields import IGNORED
from worker.distillation.errors import UploadError
from worker.distillation.wording import counted

LISTED = 8
USUAL_METRES = (0.02, 500)
"""Median depths beyond which a wrong scale is likely."""


def from_array(name: str, array: Any, labels: str, expected: str) -> Tensor:
    """Masks (N, H, W) uint8 or depth (N, H, W) float32 from a NumPy array; `expected` says what to send.

    Raises:
        UploadError: a mask has other values than 0 to 255.
    """
    import numpy as np

    if labels == "mask":
        if array.size and not 0 <= int(array.min()) <= int(array.max()) <= IGNORED:
            raise UploadError(f"{name} has values from {array.min()} to {array.max()}", expected)
        return torch.from_numpy(array.astype(np.uint8))
    with np.errstate(over="ignore"):
        value = array.astype(np.float32)
    return torch.from_numpy(np.where(np.isfinite(value) & (value > 0), value, np.float32(0)))


def check(splits: Mapping[str, tuple[Tensor, Tensor]], named: int | None) -> int:
    """The number of classes of masks: `named` if given, else the number found.

    Raises:
        UploadError: the masks have no pixel with a class, more classes than are named, or a single one.
    """
    known = [mask[mask != IGNORED] for _, mask in splits.values()]
    if not any(len(each) for each in known):
        raise UploadError("all pixels of all masks are ignored", "Send masks of classes from 0 to 254.")
    classes = 1 + max(int(each.max()) for each in known if len(each))
    if named is not None and classes > named:
        words = "the largest class in the masks is {largest}, but there [is|are] {n} class name[s] or colour[s]"
        words = counted(named, words, largest=classes - 1)
        raise UploadError(words, "Name every class; or list numbers that are no class in the option ignored_values.")
    classes = named or classes
    if classes < 2:
        raise UploadError("all pixels of all masks have the same class", "Send masks of at least two classes.")
    return classes


def describe_mask(mask: Tensor, classes: int) -> dict[str, Any]:
    """The share of each class among the pixels that are not ignored, and the share of ignored pixels."""
    count = torch.bincount(mask.flatten(), minlength=IGNORED + 1).double()
    total = count[:IGNORED].sum().clamp(min=1)
    return {
        "per_class": [round(float(each), 6) for each in count[:classes] / total],
        "ignored": round(float(count[IGNORED] / count.sum()), 6),
    }


def describe_depth(value: Tensor) -> dict[str, float | None]:
    """Least, median and largest depth in metres, and the share of unknown pixels."""
    known = value[value > 0]
    if not len(known):
        return {"least": None, "median": None, "most": None, "unknown": 1.0}
    numbers: dict[str, Tensor] = {"least": known.min(), "median": known.median(), "most": known.max()}
    found: dict[str, float | None] = {name: round(float(each), 4) for name, each in numbers.items()}
    return found | {"unknown": round(1 - len(known) / value.numel(), 6)}


def warnings(value: Tensor, labels: str, names: tuple[str, ...]) -> list[str]:
    """Warnings to the user about the training masks or depth (N, H, W)."""
    if labels == "depth":
        empty = int((value.flatten(1) == 0).all(1).sum())
        found = [counted(empty, "{n} training image[s] [has|have] no pixel of known depth")] if empty else []
        median = describe_depth(value)["median"]
        if median is not None and not USUAL_METRES[0] <= median <= USUAL_METRES[1]:
            found.append(
                f"the median depth is {median:.4g} metres: is the option depth_scale the number that is one metre?"
            )
        return found
    count = torch.bincount(value.flatten(), minlength=IGNORED + 1)
    absent = [name for name, number in zip(names, count.tolist(), strict=False) if not number]
    words, listed = "{n} class[es] ({listed}) [has|have] no training pixel", ", ".join(absent[:LISTED])
    found = [counted(len(absent), words, listed=listed)] if absent else []
    empty = int((value.flatten(1) == IGNORED).all(1).sum())
    return [*found, *([counted(empty, "all pixels of {n} training mask[s] are ignored")] if empty else [])]
