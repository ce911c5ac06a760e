"""Packed: a dataset as it was read from an upload, before it is written in the canonical form.

Shapes: N samples, C channels, H height, W width.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, Literal

import torch
from safetensors.torch import save_file
from torch import Tensor

from worker.distillation.errors import UploadError
from worker.distillation.limits import Limits
from worker.distillation.parameters import Range

LISTED_AT_MOST = 1000


@dataclass(frozen=True)
class Options:
    """A user's wishes for a dataset."""

    height: Annotated[int | None, Range(ge=1, le=4096), "Height of all images; by default the commonest."] = None
    width: Annotated[int | None, Range(ge=1, le=4096), "Width of all images; by default the commonest."] = None
    channels: Annotated[Literal[1, 3] | None, "1 for grey, 3 for RGB; by default what the images are."] = None


@dataclass
class Packed:
    """`splits`: by name (`train`, `test`) images (N, C, H, W) uint8 and labels (N,) int64; all images of one size."""

    format: str
    splits: dict[str, tuple[Tensor, Tensor]]
    class_names: tuple[str, ...]
    warnings: list[str] = field(default_factory=list)

    def write(self, path: Path) -> None:
        """The canonical form (docs/architecture.md)."""
        tensors = {
            f"{split}.{name}": tensor.contiguous()
            for split, pair in self.splits.items()
            for name, tensor in zip(("image", "label"), pair, strict=True)
        }
        save_file(tensors, path, metadata={"class_names": json.dumps(self.class_names)})

    def findings(self) -> dict[str, Any]:
        """What a user wants to see of it; mean and standard deviation are of `train`, in units of 1 (white)."""
        image, _ = self.splits["train"]
        mean, std = statistics(image)
        counts = {
            split: torch.bincount(label, minlength=len(self.class_names)) for split, (_, label) in self.splits.items()
        }
        return {
            "format": self.format,
            "splits": {split: len(label) for split, (_, label) in self.splits.items()},
            "classes": len(self.class_names),
            "class_names": list(self.class_names[:LISTED_AT_MOST]),
            "image": dict(zip(("channels", "height", "width"), image.shape[1:], strict=True)),
            "per_class": {split: count[:LISTED_AT_MOST].tolist() for split, count in counts.items()},
            "mean": mean,
            "std": std,
            "warnings": [*self.warnings, *self._warn(counts["train"], std)],
        }

    def _warn(self, count: Tensor, std: list[float]) -> list[str]:
        said = {
            "have no training image": (count == 0).nonzero()[:, 0].tolist(),
            "have a single training image": (count == 1).nonzero()[:, 0].tolist(),
        }
        warnings = [
            f"{_classes([self.class_names[number] for number in found])} {what}"
            for what, found in said.items()
            if found
        ]
        if min(std) == 0:
            warnings.append("a channel has the same value in all images")
        return warnings


def check_labels(splits: Mapping[str, tuple[Tensor, Tensor]], limits: Limits, named: int | None = None) -> int:
    """The number of classes: `named`, else one more than the largest label.

    Raises:
        UploadError: a split is empty, or labels are negative, too large, or all the same.
    """
    for split, (image, label) in splits.items():
        if len(image) != len(label):
            raise UploadError(
                f"the split {split} has {len(image)} images and {len(label)} labels", "Send one label for each image."
            )
        if not len(label):
            raise UploadError(f"the split {split} is empty", "Send at least one image in each split.")
        if int(label.min()) < 0:
            raise UploadError(f"a label of the split {split} is negative", "Number the classes from 0.")
    classes = 1 + max(int(label.max()) for _, label in splits.values())
    if named is not None and classes > named:
        raise UploadError(
            f"a label is {classes - 1}, and there are {named} class names", "Number the classes from 0 and name each."
        )
    classes = named or classes
    if classes > limits.classes:
        raise UploadError(
            f"the labels ask for {classes} classes; at most {limits.classes} are read",
            "Number the classes from 0 without gaps.",
        )
    if classes < 2:
        raise UploadError("all images are of one class", "Send images of at least two classes.")
    return classes


def check_size(count: int, shape: tuple[int, ...], limits: Limits) -> None:
    """See that so many images (C, H, W) of bytes may be held in memory."""
    size = count * shape[0] * shape[1] * shape[2]
    if size > limits.dataset_bytes:
        raise UploadError(
            f"the images have {size} bytes when packed; at most {limits.dataset_bytes} are read",
            "Set options height and width to a smaller size.",
        )


def statistics(image: Tensor) -> tuple[list[float], list[float]]:
    """Mean and standard deviation by channel of bytes (N, C, H, W), in units of 255, over all pixels (by a histogram)."""
    value = torch.arange(256, dtype=torch.float64)
    mean, std = [], []
    for channel in image.unbind(1):
        share = torch.bincount(channel.reshape(-1), minlength=256).double() / channel.numel()
        centre = (share * value).sum()
        mean.append(float(centre) / 255)
        std.append(float((share * (value - centre) ** 2).sum().sqrt()) / 255)
    return mean, std


def _classes(names: list[str]) -> str:
    listed = ", ".join(names[:8]) + (f" and {len(names) - 8} more" if len(names) > 8 else "")
    return f"{len(names)} classes ({listed})"
