"""Images: one split of a canonical dataset, held on a device as bytes.

Shapes: N samples, B batch, C channels, H height, W width.
"""

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from worker.distillation.contract import InputContract
from worker.distillation.data.fields import resized
from worker.distillation.data.pixels import Pending, Photographs, batches, crop_each
from worker.distillation.data.resizing import at_once, scale
from worker.distillation.data.samplers import generator
from worker.distillation.data.shards import FIELD, LIST, read_list
from worker.distillation.errors import UploadError

LUMA = (0.299, 0.587, 0.114)
"""Weights of red, green and blue in a grey value (ITU-R BT.601)."""

IMAGE_FIELDS = ("image", "privileged", FIELD)
"""Fields that networks read; a teacher may read `privileged`, a second image of the sample that the student does not see."""


@dataclass(frozen=True)
class Images:
    """A split, or a part of one.

    `image` (N, C, H, W) uint8, in memory or as photographs that are decoded when they are read; `fields`: other values of each sample by name, of any shape that begins with N; `index`
    (N,) int64: each sample's position in the whole split, also if these are only a part of it; `examples`: the size of the
    whole split, so that `index < examples`.

    Fields are named as in a canonical dataset: `label` (N,) int64, or (N, K) of 0 and 1 for several labels a sample;
    `target` (N, D) float32; `camera` (N,) and `query` (N,) int64; `mask`, `depth` and `boxes` as in `data/fields.py`, which move
    with the image.
    """

    image: Tensor | Photographs
    fields: Mapping[str, Tensor]
    index: Tensor
    examples: int
    class_names: tuple[str, ...]
    contract: InputContract
    privileged: "Images | None" = None
    """The same samples as the job's teacher reads them, if it does not read `image`."""

    @classmethod
    def of(
        cls,
        image: Tensor | Photographs,
        fields: Tensor | Mapping[str, Tensor],
        class_names: tuple[str, ...],
        contract: InputContract,
    ) -> "Images":
        """A whole split from uint8 images that already have the contract's shape, and their fields or only their labels."""
        index = torch.arange(len(image), device=image.device)
        named = fields if isinstance(fields, Mapping) else {"label": fields}
        held = {name: value.to(image.device) for name, value in named.items()}
        return cls(image, held, index, len(image), class_names, contract)

    @classmethod
    def load(
        cls, path: Path, split: str, contract: InputContract, device: torch.device | str, read: str = "image"
    ) -> "Images":
        """Read `train` or `test` of a canonical dataset, and convert its images to the contract's channels and size.

        `read` selects the image of each sample: `image` or `privileged`.

        Raises:
            UploadError: the file has no such split, or its images cannot be converted.
        """
        try:
            with safe_open(path, framework="pt") as file:
                keys = [key for key in file.keys() if key.startswith(f"{split}.")]  # noqa: SIM118
                fields = {key.removeprefix(f"{split}."): file.get_tensor(key) for key in keys}
                class_names = _class_names(file)
                shards = read_list(file.get_tensor(LIST)) if f"{split}.{FIELD}" in keys else []
        except SafetensorError as error:
            raise UploadError(f"the dataset cannot be read: {error}", "Upload the dataset again.") from error
        if not {"image", FIELD} & fields.keys():
            raise UploadError(f"the dataset has no split {split!r}", "Upload a dataset with this split.")
        by_field = {name: fields.pop(name) for name in IMAGE_FIELDS if name in fields}
        image: Tensor | Photographs
        if read == "image" and FIELD in by_field:
            image = Photographs.of(by_field[FIELD], path.parent, shards, contract, device)
        else:
            stored = by_field[read]
            fields = resized(fields, (stored.shape[2], stored.shape[3]), (contract.height, contract.width))
            image = fit(stored, contract).to(device)
        return cls.of(image, fields, class_names or _numbered(fields), contract)

    def __len__(self) -> int:
        return len(self.image)

    @property
    def device(self) -> torch.device:
        """The device of batches."""
        return self.image.device

    def sizes(self, chosen: Tensor) -> Tensor:
        """Height and width of the images at these positions, which parts of them refer to (B, 2) int64 on the CPU."""
        if isinstance(self.image, Photographs):
            return self.image.sizes[chosen.cpu()]
        return torch.tensor([self.image.shape[2:]]).expand(len(chosen), 2)

    @property
    def decodes(self) -> bool:
        """Whether images are decoded when they are read, so that it is worth to begin early."""
        return isinstance(self.image, Photographs)

    def pixels(self, chosen: Tensor | slice) -> Tensor:
        """The images (B, C, H, W) uint8 at these positions, of photographs the centre."""
        return self.image[chosen]

    def begin(self, chosen: Tensor, parts: Tensor | None = None) -> Pending:
        """Start to read the images at these positions; photographs are decoded in threads.

        Args:
            parts: (B, 4), what is shown of each: top, left, height and width in pixels of `sizes`, resized to the contract. If
                None: all of it, or the centre of a photograph.
        """
        if isinstance(self.image, Photographs):
            return self.image.begin(chosen, parts)
        image = self.image
        return lambda: image[chosen] if parts is None else crop_each(image[chosen], parts)

    def batches(self, size: int) -> Iterator[Tensor]:
        """All images in order, in batches (B, C, H, W) uint8 of at most `size`."""
        return batches(self.image, size)

    @property
    def label(self) -> Tensor:
        """The field `label`; datasets with targets or without labels have none."""
        return self.fields["label"]

    @property
    def classes(self) -> int:
        """Number of classes, labels or targets."""
        return len(self.class_names)

    @property
    def for_teacher(self) -> "Images":
        """The samples as the job's teacher reads them."""
        return self if self.privileged is None else self.privileged

    def batch_fields(self, chosen: Tensor | slice) -> dict[str, Tensor]:
        """The fields of a batch of these samples, with multi-label labels as floats, and `index`."""
        held = {name: value[chosen] for name, value in self.fields.items()}
        if "label" in held and held["label"].ndim == 2:
            held["label"] = held["label"].float()
        return {**held, "index": self.index[chosen]}

    def normalise(self, image_BCHW: Tensor) -> Tensor:
        """The input of the network from uint8 images: `(pixel / 255 - mean) / std` per channel, float32, channels last."""
        scale, offset = _affine(self.contract, image_BCHW.device, image_BCHW.shape[3])
        image_BHWC = image_BCHW.contiguous(memory_format=torch.channels_last).permute(0, 2, 3, 1)
        # as rows of W * C values, since broadcasting over three channels alone takes several times as long
        rows = image_BHWC.flatten(2).to(torch.float32, copy=True)
        torch.addcmul(offset, rows, scale, out=rows)  # in place, since fresh memory costs as much as the arithmetic
        return rows.view(image_BHWC.shape).permute(0, 3, 1, 2)

    def at(self, chosen: Tensor) -> "Images":
        """The samples at these positions; they keep their `index`."""
        fields = {name: value[chosen] for name, value in self.fields.items()}
        privileged = self.privileged.at(chosen) if self.privileged is not None else None
        image = self.image.at(chosen) if isinstance(self.image, Photographs) else self.image[chosen]
        return replace(self, image=image, fields=fields, index=self.index[chosen], privileged=privileged)

    def split(self, fraction: float, seed: int) -> tuple["Images", "Images"]:
        """`(train, held_out)`: about `fraction` of each class is held out, the same samples for the same seed.

        Samples without a single label count as one class. The only sample of a class stays in `train`. Both parts keep the
        order and the indices of the whole.
        """
        if not 0 <= fraction < 1:
            raise ValueError(f"fraction must be at least 0 and less than 1, not {fraction}")
        label, draw = self.fields.get("label", self.index).cpu(), generator(seed, "split")
        if "label" not in self.fields or label.ndim != 1:
            label = torch.zeros(len(self), dtype=torch.int64)
        held = torch.zeros(len(self), dtype=torch.bool)
        for name in label.unique():
            members = (label == name).nonzero()[:, 0]
            count = min(round(fraction * len(members)), len(members) - 1)
            held[members[torch.randperm(len(members), generator=draw)[:count]]] = True
        chosen = held.to(self.device)
        return self.at((~chosen).nonzero()[:, 0]), self.at(chosen.nonzero()[:, 0])


def _numbered(fields: Mapping[str, Tensor]) -> tuple[str, ...]:
    """Default names of classes, labels or targets: their numbers; none without labels."""
    if not {"label", "target"} & fields.keys():
        return ()
    truth = fields["label"] if "label" in fields else fields["target"]
    return tuple(map(str, range(truth.shape[1] if truth.ndim == 2 else int(truth.max()) + 1)))


def class_names_of(path: Path) -> tuple[str, ...]:
    """The class names in a canonical dataset; empty if it has none."""
    with safe_open(path, framework="pt") as file:
        return _class_names(file)


def _class_names(file: Any) -> tuple[str, ...]:
    return tuple(json.loads((file.metadata() or {}).get("class_names", "[]")))


def warnings_of(path: Path) -> tuple[str, ...]:
    """What the inspection of a canonical dataset warned of; empty if it says nothing."""
    with safe_open(path, framework="pt") as file:
        if "warnings" not in set(file.keys()):
            return ()
        return tuple(json.loads(bytes(file.get_tensor("warnings").tolist())))


def has_split(path: Path, split: str) -> bool:
    """Whether a canonical dataset contains this split."""
    return has_field(path, split, "image") or has_field(path, split, FIELD)


def has_field(path: Path, split: str, name: str) -> bool:
    """Whether a canonical dataset contains this field of a split, such as `privileged`."""
    with safe_open(path, framework="pt") as file:
        return f"{split}.{name}" in set(file.keys())


def fit(image: Tensor, contract: InputContract) -> Tensor:
    """Convert uint8 images (N, C, H, W) to a contract's channels, then to its size (bilinear, antialiased), where they differ.

    Raises:
        UploadError: the channels differ, and the images are not greyscale to expand or RGB to convert to greyscale.
    """
    image = _with_channels(image, contract.channels)
    size = (contract.height, contract.width)
    if tuple(image.shape[2:]) == size:
        return image
    return scale(image, *size)


def _with_channels(image: Tensor, channels: int) -> Tensor:
    if image.shape[1] == channels:
        return image
    if image.shape[1] == 1:
        return image.expand(-1, channels, -1, -1).contiguous()
    if (image.shape[1], channels) != (3, 1):
        raise UploadError(
            f"the images have {image.shape[1]} channels, but the network reads {channels}",
            f"Upload a dataset with {channels} channels; only greyscale and RGB are converted into each other.",
        )
    grey = image.new_empty(len(image), 1, *image.shape[2:])
    weight = torch.tensor(LUMA, device=image.device).view(1, 3, 1, 1)
    for part, target in zip(image.split(at_once(image)), grey.split(at_once(image)), strict=True):
        target.copy_((part.float() * weight).sum(1, keepdim=True).round_())
    return grey


@lru_cache(maxsize=16)
def _affine(contract: InputContract, device: torch.device, width: int) -> tuple[Tensor, Tensor]:
    """Scale and offset of each value in a row of pixels (W * C,); cached, since every step needs them and a copy to the GPU synchronises with it."""
    mean, std = torch.tensor(contract.mean, dtype=torch.float64), torch.tensor(contract.std, dtype=torch.float64)
    scale, offset = (1 / (255 * std)).float(), (-mean / std).float()
    return scale.repeat(width).to(device), offset.repeat(width).to(device)
