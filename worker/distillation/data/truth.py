"""The labels of a dataset: one class per sample, several labels of 0 or 1, a vector of real-valued targets, a class or a depth for
each pixel, boxes, or none.

Shapes: N samples, K labels, D targets, H height, W width, M boxes.
"""

from collections.abc import Mapping
from typing import Any, Literal

import torch
from torch import Tensor

from worker.distillation.data import map_truth
from worker.distillation.errors import UploadError
from worker.distillation.limits import UploadLimits
from worker.distillation.wording import counted, listed

Labels = Literal["class", "multi_label", "target", "mask", "depth", "boxes", "none"]
DENSE = ("mask", "depth", "boxes")
"""Labels with a place in the image, which change with it: `data/fields.py` says how."""
SHAPES: Mapping[str, tuple[int, str]] = {"class": (1, "ui"), "mask": (3, "bui"), "depth": (3, "uif")}
"""Dimensions and kinds of type of an array of labels, where they are not (2, "buif")."""
LISTED_AT_MOST = 1000
LARGEST_CLASS = 2**31
EXPECTED = {
    "class": "Send one integer per image, (N,), counted from 0, or set the option labels to multi_label or target.",
    "multi_label": "Send 0 or 1 for each image and label, (N, K).",
    "target": "Send real numbers for each image, (N,) or (N, D).",
    "mask": "Send one class for each pixel, (N, H, W), from 0 to 254, and 255 where it is ignored.",
    "depth": "Send metres for each pixel, (N, H, W), and 0 where the depth is unknown.",
}


def field_of(labels: Labels) -> str:
    """The name of the labels' field in a canonical dataset."""
    return labels if labels == "target" or labels in DENSE else "label"


def from_array(name: str, array: Any, labels: Labels) -> Tensor:
    """(N,) int64, (N, K) uint8, (N, D) float32, or (N, H, W) uint8 or float32 from a NumPy array.

    Raises:
        UploadError: the array has another shape or type, or invalid values.
    """
    import numpy as np

    array = array[:, 0] if labels == "class" and array.ndim == 2 and array.shape[1] == 1 else array
    array = array[:, None] if labels == "target" and array.ndim == 1 else array
    dimensions, kinds = SHAPES.get(labels, (2, "buif"))
    if array.ndim != dimensions or array.dtype.kind not in kinds or not all(array.shape[1:]):
        raise UploadError(f"{name} has the unsupported shape {array.shape} or type {array.dtype}", EXPECTED[labels])
    if labels in DENSE:
        return map_truth.from_array(name, array, labels, EXPECTED[labels])
    if labels == "class":
        if len(array) and int(array.max()) >= LARGEST_CLASS:
            raise UploadError(
                f"{name} contains the label {int(array.max())}, which is too large",
                "Number the classes from 0 without gaps.",
            )
        return torch.from_numpy(array.astype(np.int64))
    if labels == "multi_label":
        if not bool(((array == 0) | (array == 1)).all()):
            raise UploadError(f"{name} contains values other than 0 and 1", EXPECTED[labels])
        return torch.from_numpy(array.astype(np.uint8))
    with np.errstate(over="ignore"):
        target = torch.from_numpy(array.astype(np.float32))
    if not bool(target.isfinite().all()):
        raise UploadError(f"{name} contains NaN, or numbers too large for float32", EXPECTED[labels])
    return target


def nothing(count: int) -> Tensor:
    """The labels of `count` images without labels (N, 0)."""
    return torch.empty((count, 0), dtype=torch.uint8)


def check(
    splits: Mapping[str, tuple[Tensor, Tensor]], labels: Labels, limits: UploadLimits, named: int | None = None
) -> int:
    """The number of classes, labels or targets: `named` if given, else the number found.

    Raises:
        UploadError: a split is empty, its images and labels differ in number, or the labels are invalid.
    """
    for split, (image, truth) in splits.items():
        if len(image) != len(truth):
            raise UploadError(
                f"the split {split} has {len(image)} images and {len(truth)} labels", "Send one label for each image."
            )
        if not len(truth):
            raise UploadError(f"the split {split} is empty", "Send at least one image in each split.")
    if labels == "none":
        return 0
    if labels == "mask":
        return map_truth.check(splits, named)
    if labels in DENSE:
        return 1 if labels == "depth" else named or 0
    return _check_classes(splits, limits, named) if labels == "class" else _check_columns(splits, limits, named)


def _check_classes(splits: Mapping[str, tuple[Tensor, Tensor]], limits: UploadLimits, named: int | None) -> int:
    negative = next((split for split, (_, label) in splits.items() if int(label.min()) < 0), None)
    if negative is not None:
        raise UploadError(f"a label of the split {negative} is negative", "Number the classes from 0.")
    classes = 1 + max(int(label.max()) for _, label in splits.values())
    if named is not None and classes > named:
        raise UploadError(
            f"the largest label is {classes - 1}, but there are {named} class names",
            "Number the classes from 0 and name each of them.",
        )
    classes = named or classes
    if classes > limits.classes:
        raise UploadError(
            f"the labels imply {classes} classes; the maximum is {limits.classes}",
            "Number the classes from 0 without gaps.",
        )
    if classes < 2:
        raise UploadError("all images have the same class", "Send images of at least two classes.")
    return classes


def _check_columns(splits: Mapping[str, tuple[Tensor, Tensor]], limits: UploadLimits, named: int | None) -> int:
    widths = {truth.shape[1] for _, truth in splits.values()}
    if len(widths) > 1:
        raise UploadError(
            "training and test images differ in the number of labels or targets",
            "Send the same labels or targets for both.",
        )
    width = widths.pop()
    if named not in (None, width):
        raise UploadError(
            f"there are {width} labels or targets, but {named} class names", "Send one name for each of them."
        )
    if width > limits.classes:
        raise UploadError(f"there are {width} labels or targets; the maximum is {limits.classes}", "Send fewer.")
    return width


def describe(splits: Mapping[str, tuple[Tensor, Tensor]], labels: Labels, classes: int) -> dict[str, Any]:
    """The findings on labels: `per_class`, the number of samples with each class or label by split, or `targets`, the mean
    and standard deviation of each target over `train`; for the first 1000 classes, labels or targets."""
    if labels in ("none", "boxes"):
        return {}
    if labels == "depth":
        return {"depth": {split: map_truth.describe_depth(value) for split, (_, value) in splits.items()}}
    if labels == "mask":
        return {"pixels": {split: map_truth.describe_mask(value, classes) for split, (_, value) in splits.items()}}
    if labels == "target":
        target = splits["train"][1][:, :LISTED_AT_MOST].double()
        return {"targets": {"mean": target.mean(0).tolist(), "std": target.std(0, correction=0).tolist()}}
    return {
        "per_class": {split: counts(truth, classes)[:LISTED_AT_MOST].tolist() for split, (_, truth) in splits.items()}
    }


def counts(truth: Tensor, classes: int) -> Tensor:
    """Number of samples with each class or label (K,)."""
    return truth.long().sum(0) if truth.ndim == 2 else torch.bincount(truth, minlength=classes)


def warnings(truth: Tensor, labels: Labels, names: tuple[str, ...]) -> list[str]:
    """Warnings to the user about the training samples' classes, labels or targets (N, ...)."""
    if labels in ("none", "boxes"):
        return []
    if labels in DENSE:
        return map_truth.warnings(truth, labels, names)
    if labels == "target":
        constant = (truth.amax(0) == truth.amin(0)).nonzero()[:, 0].tolist()
        found = {"target[s]": {"[is|are] the same for all training images": constant}}
    else:
        count = counts(truth, len(names))
        by_finding = {
            "[has|have] no training image": (count == 0).nonzero()[:, 0].tolist(),
            "[has|have] a single training image": (count == 1).nonzero()[:, 0].tolist(),
        }
        found = {"class[es]" if labels == "class" else "label[s]": by_finding}
        if labels == "multi_label":
            found["label[s]"]["[applies|apply] to all training images"] = (count == len(truth)).nonzero()[:, 0].tolist()
    return [
        counted(len(numbers), f"{{n}} {what} ({{listed}}) {finding}", listed=listed([names[each] for each in numbers]))
        for what, each in found.items()
        for finding, numbers in each.items()
        if numbers
    ]


def alike(names: tuple[str, ...]) -> list[str]:
    """A warning if names of classes differ in nothing but case and blanks, as misspelt ones do."""
    by_word: dict[str, list[str]] = {}
    for name in names:
        by_word.setdefault(" ".join(name.casefold().split()), []).append(name)
    found = [" and ".join(map(repr, each)) for each in by_word.values() if len(each) > 1]
    if not found:
        return []
    return [f"some classes differ only in case or blanks and were taken for different ones: {listed(found)}"]


def check_retrieval(fields: Mapping[str, Mapping[str, Tensor]], splits: Mapping[str, tuple[Tensor, Tensor]]) -> None:
    """Check that there is one camera and query number for each sample, and that there are queries and a gallery.

    Raises:
        UploadError: a number is missing, or all samples are queries, or none.
    """
    for split, named in fields.items():
        for name, value in named.items():
            if split not in splits or len(value) != len(splits[split][0]):
                raise UploadError(
                    f"{name} of the split {split} does not have one number per image", "Send one number per image."
                )
        query = named.get("query")
        if query is not None and len(query.unique()) != 2:
            message = f"`query` of the split {split} does not mark both queries and gallery images"
            raise UploadError(message, "Mark queries with 1 and gallery images with 0, or leave `query` out.")
