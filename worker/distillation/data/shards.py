"""Shards: encoded images one after the other in large files, each named by its SHA-256.

The table of a split, (N, 5) int64, has a row for each image: the number of its shard, offset, length, height and width.
"""

import hashlib
import json
import mmap
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from worker.distillation.errors import UploadError

SHARD_BYTES = 96 * 2**20
"""Size from which on a shard is complete."""
COLUMNS = ("shard", "offset", "length", "height", "width")
FIELD = "photograph"
"""Name of the table in a canonical dataset, in place of `image`."""
LIST = "shards"
"""Name of the list of shards in a canonical dataset."""


@dataclass(frozen=True)
class Shard:
    """A complete shard: its name, which is its SHA-256, and its size in bytes."""

    sha256: str
    size: int


@dataclass
class ShardWriter:
    """Writes encoded images to shards in `folder`."""

    folder: Path
    shard_bytes: int = SHARD_BYTES
    shards: list[Shard] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.folder.mkdir(parents=True, exist_ok=True)
        self._partial = self.folder / "shard.part"
        self._file: Any = None
        self._size = 0

    def add(self, encoded: bytes | memoryview, height: int, width: int) -> tuple[int, ...]:
        """Write an image; returns its row of the table."""
        if self._file is None:
            self._file, self._hash, self._size = self._partial.open("wb"), hashlib.sha256(), 0
        row = (len(self.shards), self._size, len(encoded), height, width)
        self._file.write(encoded)
        self._hash.update(encoded)
        self._size += len(encoded)
        if self._size >= self.shard_bytes:
            self.close()
        return row

    def close(self) -> None:
        """Complete the last shard."""
        if self._file is None:
            return
        self._file.close()
        self._file = None
        shard = Shard(self._hash.hexdigest(), self._size)
        self._partial.replace(self.folder / shard.sha256)
        self.shards.append(shard)


def listed(shards: Sequence[Shard]) -> Tensor:
    """A list of shards as a tensor of bytes (uint8), as a canonical dataset contains it."""
    text = json.dumps([{"sha256": each.sha256, "size": each.size} for each in shards])
    return torch.tensor(list(text.encode()), dtype=torch.uint8)


def read_list(tensor: Tensor) -> list[Shard]:
    """The shards of `listed`."""
    return [Shard(str(each["sha256"]), int(each["size"])) for each in json.loads(bytes(tensor.tolist()))]


class ShardFiles:
    """The shards of a dataset in a folder, mapped read-only at their first use."""

    def __init__(self, folder: Path, shards: Sequence[Shard]):
        self.folder = folder
        self.shards = shards
        self._map = lru_cache(maxsize=None)(self._mapped)

    def read(self, row: Sequence[int]) -> memoryview:
        """The bytes of the image of a row of the table.

        Raises:
            UploadError: the shard is missing or shorter than the table says.
        """
        shard, offset, length = row[:3]
        found = memoryview(self._map(int(shard)))[offset : offset + length]
        if len(found) != length:
            raise UploadError("the dataset's shards are shorter than its table says", "Upload the dataset again.")
        return found

    def _mapped(self, number: int) -> mmap.mmap:
        try:
            with (self.folder / self.shards[number].sha256).open("rb") as file:
                return mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
        except (OSError, ValueError, IndexError) as error:
            raise UploadError(f"a shard of the dataset cannot be read: {error}", "Upload the dataset again.") from error
