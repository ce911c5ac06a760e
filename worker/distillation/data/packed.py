"""Packed: a dataset read from an upload, before it is written in the canonical form.

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
from worker.distillation.data import shards, truth
from worker.distillation.data.truth import LISTED_AT_MOST, Labels
from worker.distillation.data.written_photographs import WrittenPhotographs
from worker.distillation.errors import UploadError
from worker.distillation.limits import UploadLimits
from worker.distillation.parameters import Example, Range


@dataclass(frozen=True)
class Options:
    """Options of a dataset upload."""

    height: Annotated[
        int | None,
        Range(ge=1, le=MOST_PIXELS),
        "Height of all images in pixels. If null: that of the most common size.",
        Example(32),
    ] = None
    width: Annotated[
        int | None,
        Range(ge=1, le=MOST_PIXELS),
        "Width of all images in pixels. If null: that of the most common size.",
        Example(32),
    ] = None
    channels: Annotated[
        Literal[1, 3] | None, "1 for greyscale, 3 for RGB. If null: 1 if all images are greyscale, else 3.", Example(3)
    ] = None
    labels: Annotated[
        Labels,
        "Kind of label: one class or identity per image (N,), 0 or 1 for each of several labels (N, K), real-valued"
        " targets (N,) or (N, D), a mask of classes or a depth for each image (N, H, W), boxes, or none. Class folders hold classes only. A"
        " file without labels is read as `none`.",
        Example("class"),
    ] = "class"
    first_label: Annotated[
        Literal[0, 1] | None,
        "Number of the first class in an array or table of labels. If null: 1 if the labels are 1 to K, each of them"
        " present, else 0.",
    ] = None
    mask_colours: Annotated[
        tuple[str, ...] | None,
        "Colours of the classes in RGB masks as #RRGGBB, in order. If null: those of `class_dict.csv` or `labelmap.txt` in the"
        " archive.",
    ] = None
    ignored_colours: Annotated[tuple[str, ...] | None, "Colours of RGB masks that no loss and no metric reads."] = None
    ignored_values: Annotated[
        tuple[int, ...] | None, "Numbers in masks that no loss and no metric reads, besides 255.", Example([11])
    ] = None
    white: Annotated[
        Literal["class", "ignored"] | None,
        "The meaning of 255 in masks that hold only 0 and 255: a second class, or ignored. Such masks are refused if null.",
    ] = None
    depth_scale: Annotated[
        float | None,
        Range(gt=0),
        "The number in depth files that is one metre: 1000 for millimetres, 256 as in KITTI. Required for files of depth.",
        Example(1000.0),
    ] = None
    fitting: Annotated[
        Literal["crop", "letterbox"],
        "How images of other sizes, with masks, depth or boxes, get the common size: `crop` the centre, or `letterbox`: keep all and"
        " pad.",
    ] = "crop"
    broken: Annotated[
        Literal["refuse", "skip"], "Images that cannot be read: `refuse` the dataset, or `skip` them with a warning."
    ] = "refuse"
    exif: Annotated[
        Literal["ignore", "apply"],
        "Orientation in the EXIF data of photos: `ignore` it, as torchvision does, or `apply` it by turning the image.",
    ] = "ignore"
    background: Annotated[
        Literal["white", "black", "drop"],
        "Colour that transparent images are laid on; `drop` keeps the hidden colour of transparent pixels.",
    ] = "white"
    sixteen_bit: Annotated[
        Literal["scale", "refuse"],
        "Images with 16 or more bits for each value: `scale` them to 8 bits by the range of their type, or `refuse` them.",
    ] = "scale"
    form: Annotated[
        Literal["auto", "pixels", "jpeg"],
        "How images are stored: as `pixels` of one size, or as `jpeg` files of their own sizes, of which jobs show parts. `auto`:"
        " `jpeg` if an archive of images takes more than 1 GiB as pixels, and its images are larger than 64 pixels.",
    ] = "auto"
    test_fraction: Annotated[
        float | None,
        Range(ge=0, le=0.9),
        "Share of the training images to move into `test` if there are no test images. If null: 0.1 if there are labels"
        " and at least 1000 images, else 0.",
        Example(0.1),
    ] = None


@dataclass
class Packed:
    """`splits`: by name (`train`, `test`) images (N, C, H, W) uint8, all of one size, and, depending on `labels`, classes
    (N,) int64, labels (N, K) uint8, targets (N, D) float32, masks (N, H, W) uint8, depth (N, H, W) float32, boxes (N, M, 4)
    float32 or nothing (N, 0); `class_names` are the names of the classes, labels or targets."""

    format: str
    splits: dict[str, tuple[Tensor, Tensor]]
    class_names: tuple[str, ...]
    warnings: list[str] = field(default_factory=list)
    privileged: dict[str, Tensor] = field(default_factory=dict)
    """A second image of each sample (N, C', H', W') uint8, by split, for a teacher that reads other images than the student."""
    labels: Labels = "class"
    retrieval: dict[str, dict[str, Tensor]] = field(default_factory=dict)
    """`camera` and `query` (N,) int64 by split, for the evaluation of embeddings."""
    altered: dict[str, int] = field(default_factory=dict)
    """Number of images by what was changed in them."""
    left_out: dict[str, int] = field(default_factory=dict)
    """Number of files by the reason why they were not read."""
    made_split: dict[str, Any] | None = None
    """How the test split was made, if it was."""
    fields: dict[str, dict[str, Tensor]] = field(default_factory=dict)
    """Further fields of the samples by split and name, such as `box_label` (N, M)."""
    found: dict[str, Any] = field(default_factory=dict)
    """What reading found out, for the findings: the format of the labels, numbers of classes, what was repaired."""
    photographs: WrittenPhotographs | None = None
    """What was written to shards; then the images of a split are the rows (N, 5) of a table (`data/shards.py`)."""

    def write(self, path: Path) -> None:
        """Write the canonical form (docs/architecture.md)."""
        tensors = {
            f"{split}.{name}": tensor.contiguous()
            for split, pair in self.splits.items()
            for name, tensor in zip((self._images, truth.field_of(self.labels)), pair, strict=True)
            if name == self._images or self.labels != "none"
        }
        if self.photographs is not None:
            tensors[shards.LIST] = shards.listed(self.photographs.shards)
        tensors |= {
            f"{split}.{name}": value for split, named in self.retrieval.items() for name, value in named.items()
        }
        tensors |= {
            f"{split}.{name}": value.contiguous()
            for split, named in self.fields.items()
            for name, value in named.items()
        }
        tensors |= {f"{split}.privileged": other.contiguous() for split, other in self.privileged.items()}
        if warnings := self.all_warnings():  # a tensor, since the order of several metadata entries is random
            tensors["warnings"] = torch.tensor(list(json.dumps(warnings).encode()), dtype=torch.uint8)
        save_file(tensors, path, metadata={"class_names": json.dumps(self.class_names)})

    def findings(self) -> dict[str, Any]:
        """The findings that a user sees; mean and standard deviation are of `train`, with white = 1."""
        mean, std = self._statistics()
        return {
            "format": self.format,
            "splits": {split: len(label) for split, (_, label) in self.splits.items()},
            "labels": self.labels,
            "classes": len(self.class_names),
            "class_names": list(self.class_names[:LISTED_AT_MOST]),
            "image": self._shape(),
            "stored": self.photographs.findings() if self.photographs else {"form": "pixels"},
            "privileged": self._privileged(),
            **truth.describe(self.splits, self.labels, len(self.class_names)),
            **self.found,
            "retrieval": {split: sorted(named) for split, named in self.retrieval.items()},
            "mean": mean,
            "std": std,
            "altered": self.altered,
            "left_out": self.left_out,
            "made_split": self.made_split,
            "warnings": self.all_warnings(),
        }

    def all_warnings(self) -> list[str]:
        """The warnings of reading, and those about the labels and the values of `train`."""
        return [
            *self.warnings,
            *truth.warnings(self.splits["train"][1], self.labels, self.class_names),
            *truth.alike(self.class_names),
            *(["a channel has the same value in all images"] if self._is_constant() else []),
        ]

    @property
    def _images(self) -> str:
        """Name of the images in the canonical form."""
        return "image" if self.photographs is None else shards.FIELD

    def _is_constant(self) -> bool:
        """Whether a channel has the same value in all training images."""
        if self.photographs is not None:
            return self.photographs.constant()
        return any(bool((each == each.flatten()[0]).all()) for each in self.splits["train"][0].unbind(1))

    def _statistics(self) -> tuple[list[float], list[float]]:
        if self.photographs is not None:
            return self.photographs.statistics()
        return statistics(self.splits["train"][0])

    def _shape(self) -> dict[str, int]:
        """Channels, height and width of the training images, of photographs the median ones."""
        if self.photographs is None:
            return _shape(self.splits["train"][0])
        height, width = self.splits["train"][0][:, 3:].median(0).values.tolist()
        return {"channels": self.photographs.channels, "height": height, "width": width}

    def _privileged(self) -> dict[str, Any] | None:
        """Shape and statistics of the second images, and the splits that have them."""
        if not self.privileged:
            return None
        mean, std = statistics(self.privileged["train"])
        return {**_shape(self.privileged["train"]), "mean": mean, "std": std, "splits": list(self.privileged)}


def check_privileged(splits: Mapping[str, tuple[Tensor, Tensor]], privileged: Mapping[str, Tensor]) -> None:
    """Check that the second images have one shape, and that there is one for each sample.

    Raises:
        UploadError: they do not, or the training samples have none.
    """
    if privileged and "train" not in privileged:
        raise UploadError("the training samples have no privileged images", "Send them as the array `privileged`.")
    for split, other in privileged.items():
        if split not in splits or len(other) != len(splits[split][0]):
            raise UploadError(
                f"the split {split} has {len(other)} privileged images and {len(splits.get(split, ((),))[0])} images",
                "Send one privileged image for each image.",
            )
    if len({other.shape[1:] for other in privileged.values()}) > 1:
        raise UploadError(
            "the privileged images differ in size or channels", "Send all of them with the same size and channels."
        )


def check_size(count: int, shape: tuple[int, ...], limits: UploadLimits) -> None:
    """Check that `count` uint8 images of `shape` (C, H, W) are within the limit.

    Raises:
        UploadError: they are not.
    """
    size = count * shape[0] * shape[1] * shape[2]
    if size > limits.dataset_bytes:
        raise UploadError(
            f"the images take {size} bytes uncompressed; the maximum is {limits.dataset_bytes}",
            "Set the options height and width to a smaller size.",
        )
    limits.check_canonical(size)


def statistics(image: Tensor) -> tuple[list[float], list[float]]:
    """Mean and standard deviation of each channel of uint8 images (N, C, H, W), divided by 255, over all pixels (computed
    from a histogram)."""
    value = torch.arange(256, dtype=torch.float64)
    mean, std = [], []
    for channel in image.unbind(1):
        share = torch.bincount(channel.reshape(-1), minlength=256).double().cpu() / channel.numel()
        centre = (share * value).sum()
        mean.append(float(centre) / 255)
        std.append(float((share * (value - centre) ** 2).sum().sqrt()) / 255)
    return mean, std


def _shape(image: Tensor) -> dict[str, int]:
    return dict(zip(("channels", "height", "width"), image.shape[1:], strict=True))
