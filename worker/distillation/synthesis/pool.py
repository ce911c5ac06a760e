"""A ring buffer of synthetic images, so that students can learn from each of them more than once.

Shapes: B batch, N images, C channels, H height, W width, K classes.
"""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from worker.distillation.contract import InputContract
from worker.distillation.data.transfers import sent
from worker.distillation.errors import Problem, SpecError

SHARD_BYTES = 4 * 2**20


class ImagePool:
    """The newest `capacity` images with the teacher's logits; new images overwrite the oldest.

    They are stored in shards of about 4 MiB. Each shard is one key of `state_dict`, so that a checkpoint writes only
    shards that have changed. Memory is allocated as shards fill.
    """

    def __init__(
        self, capacity: int, shape_CHW: tuple[int, ...], classes: int, dtype: torch.dtype, device: torch.device
    ):
        self.capacity = capacity
        self.shape = shape_CHW
        self.classes = classes
        self.dtype = dtype
        self.device = device
        self.shard_size = min(capacity, max(1, SHARD_BYTES // bytes_per_image(shape_CHW, classes, dtype)))
        self.written = 0
        self._shards: list[dict[str, Tensor]] = []

    def __len__(self) -> int:
        return min(self.written, self.capacity)

    def add(self, image_BCHW: Tensor, logits_BK: Tensor) -> None:
        """Write a batch over the oldest images."""
        self._grow(min(self.written + len(image_BCHW), self.capacity))
        places = (self.written + torch.arange(len(image_BCHW))) % self.capacity
        for shard, chosen, offset in self._split(places):
            shard["image"][offset] = image_BCHW[chosen].to(self.device, self.dtype)
            shard["logits"][offset] = logits_BK[chosen].to(self.device, torch.float32)
        self.written += len(image_BCHW)

    def read(self, places: Tensor) -> tuple[Tensor, Tensor]:
        """Images (B, C, H, W) and logits (B, K), float32, at the indices `places` (B,) int64 on the CPU, each below
        `len(self)`."""
        image = torch.empty((len(places), *self.shape), device=self.device)
        logits = torch.empty((len(places), self.classes), device=self.device)
        for shard, chosen, offset in self._split(places):
            image[chosen] = shard["image"][offset].float()
            logits[chosen] = shard["logits"][offset]
        return image, logits

    def draw(self, size: int, random: torch.Generator) -> tuple[Tensor, Tensor]:
        """`size` images and logits, uniform and with replacement."""
        return self.read(torch.randint(len(self), (size,), generator=random))

    def newest(self, size: int) -> tuple[Tensor, Tensor]:
        """The last `size` images and logits (all if there are fewer), newest last."""
        size = min(size, len(self))
        return self.read((self.written - size + torch.arange(size)) % self.capacity)

    def state_dict(self) -> dict[str, Any]:
        """`written`, `layout`, and every shard as `shard.NUMBER`."""
        layout = {"capacity": self.capacity, "shard_size": self.shard_size, "dtype": str(self.dtype).partition(".")[2]}
        shards = {f"shard.{number:04}": shard for number, shard in enumerate(self._shards)}
        return {"written": self.written, "layout": layout} | shards

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restore what `state_dict` returned, including capacity and dtype: on hardware of another precision the
        pool would have another dtype and thus another capacity, which would change the draws."""
        layout = state["layout"]
        self.capacity = layout["capacity"]
        self.shard_size = layout["shard_size"]
        self.dtype = getattr(torch, layout["dtype"])
        self.written = state["written"]
        self._shards = []
        self._grow(len(self))
        for number, shard in enumerate(self._shards):
            for name, tensor in shard.items():
                tensor.copy_(state[f"shard.{number:04}"][name])

    def _grow(self, images: int) -> None:
        """Allocate shards for the first `images` places."""
        while len(self._shards) * self.shard_size < images:
            size = min(self.shard_size, self.capacity - len(self._shards) * self.shard_size)
            image = torch.zeros((size, *self.shape), dtype=self.dtype, device=self.device)
            self._shards.append({"image": image, "logits": torch.zeros((size, self.classes), device=self.device)})

    def _split(self, places: Tensor) -> list[tuple[dict[str, Tensor], Tensor, Tensor]]:
        """For every shard that `places` touch: the shard, which of the places are in it, and their offsets in it.

        Sorted on the CPU, so that there are two copies to the device, not two for each shard.
        """
        numbers, order = (places // self.shard_size).sort(stable=True)
        touched, counts = numbers.unique_consecutive(return_counts=True)
        sizes = counts.tolist()
        chosen = sent(order, self.device).split(sizes)
        offsets = sent((places % self.shard_size)[order], self.device).split(sizes)
        return list(zip([self._shards[number] for number in touched.tolist()], chosen, offsets, strict=True))


def bytes_per_image(shape_CHW: tuple[int, ...], classes: int, dtype: torch.dtype) -> int:
    """Bytes that a pool takes for one image and its logits."""
    return torch.Size(shape_CHW).numel() * dtype.itemsize + 4 * classes


def pool_within(
    *,
    bytes_limit: int,
    images: int,
    least: int,
    contract: InputContract,
    classes: int,
    dtype: torch.dtype,
    device: torch.device,
) -> ImagePool:
    """A pool of `images`, or of as many as `bytes_limit` allows.

    Raises:
        SpecError: that is fewer than `least`.
    """
    shape = (contract.channels, contract.height, contract.width)
    each = bytes_per_image(shape, classes, dtype)
    capacity = min(images, bytes_limit // each)
    if capacity < least:
        needed = -(-least * each // 2**20)
        message = f"must be at least {needed} to hold one batch of {least} images"
        raise SpecError([Problem("/source/pool_megabytes", message)])
    return ImagePool(capacity, shape, classes, dtype, device)
