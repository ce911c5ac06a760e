"""Images: one split of a canonical dataset, held on a device as bytes.

Shapes: N samples, B batch, C channels, H height, W width.
"""

import json
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from worker.distillation.data.resizing import at_once, scale
from worker.distillation.data.samplers import generator
from worker.distillation.errors import UploadError
from worker.distillation.source import InputContract

LUMA = (0.299, 0.587, 0.114)
"""Weights of red, green and blue in a grey value (ITU-R BT.601)."""


@dataclass(frozen=True)
class Images:
    """`image` (N, C, H, W) uint8, `label` (N,) int64, `index` (N,) int64: each sample's place in the whole split, which
    a part of it keeps; `examples` is the size of that whole, so that `index < examples`."""

    image: Tensor
    label: Tensor
    index: Tensor
    examples: int
    class_names: tuple[str, ...]
    contract: InputContract

    @classmethod
    def of(cls, image: Tensor, label: Tensor, class_names: tuple[str, ...], contract: InputContract) -> "Images":
        """A whole split from its tensors: uint8 images that already have the contract's shape, and their labels."""
        index = torch.arange(len(image), device=image.device)
        return cls(image, label.to(image.device), index, len(image), class_names, contract)

    @classmethod
    def load(cls, path: Path, split: str, contract: InputContract, device: torch.device | str) -> "Images":
        """Read `train` or `test` of a canonical dataset, brought to the contract's channels and size.

        Raises:
            UploadError: the file has no such split, or cannot be brought to the contract.
        """
        names = {f"{split}.image", f"{split}.label"}
        try:
            with safe_open(path, framework="pt") as file:
                if not names <= set(file.keys()):
                    raise UploadError(f"the dataset has no split called {split!r}", "Upload a dataset that has it.")
                image, label = file.get_tensor(f"{split}.image"), file.get_tensor(f"{split}.label")
                class_names = tuple(json.loads((file.metadata() or {}).get("class_names", "[]")))
        except SafetensorError as error:
            raise UploadError(f"the dataset cannot be read: {error}", "Upload the dataset again.") from error
        names_of = class_names or tuple(map(str, range(int(label.max()) + 1)))
        return cls.of(fit(image, contract).to(device), label, names_of, contract)

    def __len__(self) -> int:
        return len(self.image)

    @property
    def classes(self) -> int:
        return len(self.class_names)

    def normalise(self, image_BCHW: Tensor) -> Tensor:
        """Bytes to what the network reads: `(pixel / 255 - mean) / std` per channel, float32."""
        scale, offset = _affine(self.contract, image_BCHW.device)
        return torch.addcmul(offset, image_BCHW.float(), scale)

    def at(self, chosen: Tensor) -> "Images":
        """The samples at these positions, with their indices."""
        return replace(self, image=self.image[chosen], label=self.label[chosen], index=self.index[chosen])

    def split(self, fraction: float, seed: int) -> tuple["Images", "Images"]:
        """`(train, held_out)`: of each class about `fraction` is held out, the same samples for the same seed.

        A class with a single sample keeps it in `train`; both parts keep the order and the indices of the whole.
        """
        if not 0 <= fraction < 1:
            raise ValueError(f"the fraction to hold out must be from 0 to less than 1, not {fraction}")
        label, draw = self.label.cpu(), generator(seed, "split")
        held = torch.zeros(len(self), dtype=torch.bool)
        for name in label.unique():
            members = (label == name).nonzero()[:, 0]
            count = min(round(fraction * len(members)), len(members) - 1)
            held[members[torch.randperm(len(members), generator=draw)[:count]]] = True
        chosen = held.to(self.image.device)
        return self.at((~chosen).nonzero()[:, 0]), self.at(chosen.nonzero()[:, 0])


def has_split(path: Path, split: str) -> bool:
    """Whether a canonical dataset holds this split."""
    with safe_open(path, framework="pt") as file:
        return f"{split}.image" in set(file.keys())


def fit(image: Tensor, contract: InputContract) -> Tensor:
    """Bytes (N, C, H, W) brought to a contract's channels, then its size (bilinear with antialiasing); unchanged if they fit.

    Raises:
        UploadError: the channels differ and neither side is grey.
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
            f"the images have {image.shape[1]} channels and the network reads {channels}",
            "Only grey images and RGB images are turned into each other; upload a dataset with the network's channels.",
        )
    grey = image.new_empty(len(image), 1, *image.shape[2:])
    weight = torch.tensor(LUMA, device=image.device).view(1, 3, 1, 1)
    for part, target in zip(image.split(at_once(image)), grey.split(at_once(image)), strict=True):
        target.copy_((part.float() * weight).sum(1, keepdim=True).round_())
    return grey


@lru_cache(maxsize=16)
def _affine(contract: InputContract, device: torch.device) -> tuple[Tensor, Tensor]:
    """Scale and offset (C, 1, 1); kept, since a copy to a GPU waits for it, and this is asked for in every step."""
    mean, std = torch.tensor(contract.mean, dtype=torch.float64), torch.tensor(contract.std, dtype=torch.float64)
    scale, offset = (1 / (255 * std)).float(), (-mean / std).float()
    return scale.view(-1, 1, 1).to(device), offset.view(-1, 1, 1).to(device)
