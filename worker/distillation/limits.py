"""What an upload may cost at most."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Self


@dataclass(frozen=True)
class UploadLimits:
    """Caps on what a stranger's file may hold; sizes in bytes."""

    parameters: int = 2 * 10**9
    """Numbers in a network's weights."""
    tensors: int = 100_000
    pickle_bytes: int = 64 * 2**20
    steps: int = 3_000_000
    """Opcodes of a pickle, and other steps of reading weights."""
    unpacked_bytes: int = 16 * 2**30
    """The one file of weights in an archive, inflated."""
    header_bytes: int = 64 * 2**20
    entries: int = 2_000_000
    """Files in an archive."""
    entry_bytes: int = 256 * 2**20
    """One picture of an archive, inflated."""
    inflated_bytes: int = 16 * 2**30
    """A whole archive, inflated."""
    ratio: int = 200
    """Inflated bytes for each stored byte of an archive's entry."""
    pixels: int = 50_000_000
    """Pixels of one picture before it is scaled."""
    dataset_bytes: int = 16 * 2**30
    """A dataset's pictures, packed."""
    classes: int = 100_000

    @classmethod
    def of(cls, values: Mapping[str, Any] | None) -> Self:
        """The defaults with these replaced."""
        return cls(**(values or {}))
