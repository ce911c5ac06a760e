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

from worker.distillation.contract import MOST_PIXELS
from worker.distillation.data import truth
from worker.distillation.data.truth import LISTED_AT_MOST, Labels
from worker.distillation.errors import UploadError
from worker.distillation.limits import UploadLimits
from worker.distillation.parameters import Example, Range


@dataclass(frozen=True)
class Options:
    """How a dataset is to be read; what is null stays as it is found."""

    height: Annotated[
        int | None, Range(ge=1, le=MOST_PIXELS), "Bring images to so many rows; the commonest if null.", Example(32)
    ] = None
    width: Annotated[
        int | None, Range(ge=1, le=MOST_PIXELS), "Bring images to so many columns; the commonest if null.", Example(32)
    ] = None
    channels: Annotated[Literal[1, 3] | None, "1 for grey, 3 for RGB; what the images are if null.", Example(3)] = None
    labels: Annotated[
        Labels,
        "What is said of each image: its class or identity (N,), 0 or 1 of every label (N, K), or real numbers (N,) or"
        " (N, D). Class folders hold classes alone.",
        Example("class"),
    ] = "class"


@dataclass
class Packed:
    """`splits`: by name (`train`, `test`) images (N, C, H, W) uint8, all of one size, and what `labels` says is known of
    them: classes (N,) int64, labels (N, K) uint8 or targets (N, D) float32; `class_names` are the names of any of these."""

    format: str
    splits: dict[str, tuple[Tensor, Tensor]]
    class_names: tuple[str, ...]
    warnings: list[str] = field(default_factory=list)
    privileged: dict[str, Tensor] = field(default_factory=dict)
    """Of some splits, a second picture of each sample (N, C', H', W') uint8, for a teacher that reads another."""
    labels: Labels = "class"
    retrieval: dict[str, dict[str, Tensor]] = field(default_factory=dict)
    """Of some splits, `camera` and `query` (N,) int64, for the evaluation of embeddings."""

    def write(self, path: Path) -> None:
        """The canonical form (docs/architecture.md)."""
        tensors = {
            f"{split}.{name}": tensor.contiguous()
            for split, pair in self.splits.items()
            for name, tensor in zip(("image", truth.field_of(self.labels)), pair, strict=True)
        }
        tensors |= {
            f"{split}.{name}": value for split, named in self.retrieval.items() for name, value in named.items()
        }
        tensors |= {f"{split}.privileged": other.contiguous() for split, other in self.privileged.items()}
        save_file(tensors, path, metadata={"class_names": json.dumps(self.class_names)})

    def findings(self) -> dict[str, Any]:
        """What a user wants to see of it; mean and standard deviation are of `train`, in units of 1 (white)."""
        image, _ = self.splits["train"]
        mean, std = statistics(image)
        return {
            "format": self.format,
            "splits": {split: len(label) for split, (_, label) in self.splits.items()},
            "labels": self.labels,
            "classes": len(self.class_names),
            "class_names": list(self.class_names[:LISTED_AT_MOST]),
            "image": _shape(image),
            "privileged": self._privileged(),
            **truth.describe(self.splits, self.labels, len(self.class_names)),
            "retrieval": {split: sorted(named) for split, named in self.retrieval.items()},
            "mean": mean,
            "std": std,
            "warnings": [*self.warnings, *self._warn(std)],
        }

    def _privileged(self) -> dict[str, Any] | None:
        """Shape and statistics of the second pictures, and in which splits they are."""
        if not self.privileged:
            return None
        mean, std = statistics(self.privileged["train"])
        return {**_shape(self.privileged["train"]), "mean": mean, "std": std, "splits": list(self.privileged)}

    def _warn(self, std: list[float]) -> list[str]:
        warnings = truth.warnings(self.splits["train"][1], self.labels, self.class_names)
        return [*warnings, "a channel has the same value in all images"] if min(std) == 0 else warnings


def check_privileged(splits: Mapping[str, tuple[Tensor, Tensor]], privileged: Mapping[str, Tensor]) -> None:
    """See that second pictures are all alike, and one for each sample.

    Raises:
        UploadError: they are not, or there are none of the training samples.
    """
    if privileged and "train" not in privileged:
        raise UploadError("the training samples have no privileged images", "Send them as `privileged`.")
    for split, other in privileged.items():
        if split not in splits or len(other) != len(splits[split][0]):
            raise UploadError(
                f"the split {split} has {len(other)} privileged images and {len(splits.get(split, ((),))[0])} images",
                "Send one privileged image for each image.",
            )
    if len({other.shape[1:] for other in privileged.values()}) > 1:
        raise UploadError("the privileged images differ in size or channels", "Send all of them alike.")


def check_size(count: int, shape: tuple[int, ...], limits: UploadLimits) -> None:
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


def _shape(image: Tensor) -> dict[str, int]:
    return dict(zip(("channels", "height", "width"), image.shape[1:], strict=True))
