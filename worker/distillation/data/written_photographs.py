"""What is known of photographs after they were written to shards.

Shapes: N images, C channels.
"""

from array import array
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from worker.distillation.data.shards import Shard

QUALITY = 95
"""JPEG quality of images that are encoded."""

OFFSET_BITS = 40
"""Bits for the offset of a file in its shard."""


@dataclass
class WrittenPhotographs:
    """What was written: the shards, and the sum of the histograms (C, 256) of some images."""

    channels: int
    short_side: int
    shards: list[Shard] = field(default_factory=list)
    histogram: Tensor | None = None
    unchanged: int = 0
    images: int = 0
    largest: tuple[int, int] = (0, 0)
    _places: "array[int]" = field(default_factory=lambda: array("q"), init=False, repr=False)
    _digests: "array[int]" = field(default_factory=lambda: array("q"), init=False, repr=False)

    @property
    def size(self) -> int:
        """Bytes of all shards."""
        return sum(each.size for each in self.shards)

    def add(self, shard: int, offset: int, digest: int) -> None:
        """Note the hash of the next file; files come in the order in which they lie in the shards."""
        self._places.append(shard << OFFSET_BITS | offset)
        self._digests.append(digest)

    def digests_of(self, table: Tensor) -> Tensor:
        """The hashes (N,) of the files in a table (N, 5)."""
        places, digests = (torch.frombuffer(each, dtype=torch.int64) for each in (self._places, self._digests))
        return digests[torch.searchsorted(places, table[:, 0] << OFFSET_BITS | table[:, 1])]

    def statistics(self) -> tuple[list[float], list[float]]:
        """Mean and standard deviation of each channel, for pixels from 0 to 1, of the images that were measured."""
        value = torch.arange(256, dtype=torch.float64) / 255
        assert self.histogram is not None
        share = self.histogram.double() / self.histogram.sum(1, keepdim=True)
        mean = (share * value).sum(1)
        variance = (share * (value - mean[:, None]) ** 2).sum(1)
        return mean.tolist(), variance.sqrt().tolist()

    def constant(self) -> bool:
        """Whether a channel has one value in all images that were measured."""
        return self.histogram is not None and bool(((self.histogram > 0).sum(1) == 1).any())

    def findings(self) -> dict[str, Any]:
        """What a user sees of the stored form."""
        return {
            "form": "jpeg",
            "short_side": self.short_side,
            "quality": QUALITY,
            "stored_unchanged": self.unchanged,
            "shards": len(self.shards),
            "bytes": self.size,
        }
