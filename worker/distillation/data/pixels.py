"""Pixels: where the images of a split come from, held in memory or decoded when they are read.

Shapes: N samples, B batch, C channels, H height, W width of the network's input.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Protocol

import torch
from torch import Tensor

from worker.distillation.contract import InputContract
from worker.distillation.data import decoding_threads
from worker.distillation.data.jpeg import Part, centred, decode_part
from worker.distillation.data.shards import Shard, ShardFiles
from worker.distillation.errors import UploadError

CENTRE = 7 / 8
"""Share of a photograph that is shown without augmentation: 224 of 256 pixels."""

Pending = Callable[[], Tensor]
"""Waits for images that are being decoded, and returns them (B, C, H, W) uint8."""


class Pixels(Protocol):
    """The images of N samples. A `Tensor` (N, C, H, W) uint8 has all of this but `at` and `begin`."""

    @property
    def device(self) -> torch.device: ...

    def __len__(self) -> int: ...

    def __getitem__(self, chosen: Tensor | slice) -> Tensor: ...


@dataclass(frozen=True)
class Photographs:
    """Photographs in shards, decoded when they are read, to the size and the channels of `contract`."""

    table: Tensor
    """(N, 5) int64 on the CPU, see `shards`."""
    files: ShardFiles
    contract: InputContract
    device: torch.device

    @classmethod
    def of(
        cls, table: Tensor, folder: Path, shards: Sequence[Shard], contract: InputContract, device: torch.device | str
    ) -> "Photographs":
        """The photographs of a table, whose shards are in a folder.

        Raises:
            UploadError: the contract has neither one channel nor three.
        """
        if contract.channels not in (1, 3):
            raise UploadError(
                f"the photographs are greyscale or RGB, but the network reads {contract.channels} channels",
                "Upload the images as arrays (npz) with all their channels.",
            )
        return cls(table, ShardFiles(folder, shards), contract, torch.device(device))

    def __len__(self) -> int:
        return len(self.table)

    def __getitem__(self, chosen: Tensor | slice) -> Tensor:
        return self.begin(chosen)()

    @property
    def sizes(self) -> Tensor:
        """Height and width of each stored image (N, 2) int64."""
        return self.table[:, 3:]

    def at(self, chosen: Tensor) -> "Photographs":
        """The photographs at these positions."""
        return replace(self, table=self.table[chosen.cpu()])

    def begin(self, chosen: Tensor | slice, parts: Tensor | None = None) -> Pending:
        """Start to decode these photographs in threads.

        Args:
            parts: (B, 4) float64, what is shown of each: top, left, height and width in pixels of the stored image. If
                None: the centre.
        """
        rows = self.table[chosen.cpu() if isinstance(chosen, Tensor) else chosen].tolist()
        shown = [self._centre(row) for row in rows] if parts is None else parts.tolist()
        held = self._blank(len(rows))

        def decode(number: int) -> None:
            self._decode(rows[number], shown[number], held[number])

        begun = decoding_threads.begin(decode, len(rows))

        def finished() -> Tensor:
            for each in begun:
                each.result()
            return held.permute(0, 3, 1, 2).to(self.device, non_blocking=True)

        return finished

    def _blank(self, count: int) -> Tensor:
        shape = (count, self.contract.height, self.contract.width, self.contract.channels)
        return torch.empty(shape, dtype=torch.uint8, pin_memory=self.device.type == "cuda")

    def _centre(self, row: Sequence[int]) -> Part:
        return centred((row[3], row[4]), self.contract.height, self.contract.width, CENTRE)

    def _decode(self, row: Sequence[int], part: Part, out: Tensor) -> None:
        try:
            decode_part(self.files.read(row), (row[3], row[4]), part, out)
        except (OSError, ValueError, SyntaxError) as error:
            raise UploadError(f"a photograph cannot be decoded: {error}", "Upload the dataset again.") from error


def batches(image: "Tensor | Photographs", size: int) -> Iterator[Tensor]:
    """All images in order, in batches (B, C, H, W) uint8; photographs are decoded before they are needed."""
    if isinstance(image, Tensor):
        yield from image.split(size)
        return
    starts = range(0, len(image), size)
    pending: list[Pending] = []
    for number, _ in enumerate(starts):
        while len(pending) <= decoding_threads.AHEAD and number + len(pending) < len(starts):
            start = starts[number + len(pending)]
            pending.append(image.begin(slice(start, start + size)))
        yield pending.pop(0)()


def crop_each(image_BCHW: Tensor, parts_B4: Tensor) -> Tensor:
    """Parts of uint8 images, each resized to the images' size, bilinear with antialiasing."""
    from torchvision.transforms.v2 import functional

    size = list(image_BCHW.shape[2:])
    parts = parts_B4.long().tolist()
    return torch.stack(
        [functional.resized_crop(image, *part, size=size) for image, part in zip(image_BCHW, parts, strict=True)]
    )
