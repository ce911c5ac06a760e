"""Limits on the size of uploads."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

from worker.distillation.errors import UploadError


@dataclass(frozen=True)
class UploadLimits:
    """Maximum sizes of an untrusted file; in bytes unless stated otherwise."""

    parameters: int = 2 * 10**9
    """Number of values in a network's weights."""
    tensors: int = 100_000
    pickle_bytes: int = 64 * 2**20
    steps: int = 3_000_000
    """Opcodes of a pickle, and other steps of reading weights."""
    unpacked_bytes: int = 16 * 2**30
    """The one file of weights in an archive, inflated."""
    header_bytes: int = 64 * 2**20
    entries: int = 2_000_000
    """Number of entries in an archive."""
    entry_bytes: int = 256 * 2**20
    """One image file of an archive, uncompressed."""
    inflated_bytes: int = 16 * 2**30
    """A whole archive, uncompressed."""
    ratio: int = 200
    """Compression ratio of an archive entry: uncompressed bytes per stored byte."""
    pixels: int = 50_000_000
    """Pixels of one image before it is resized."""
    dataset_bytes: int = 16 * 2**30
    """All images of a dataset, decoded and resized."""
    pixel_bytes: int = 2**30
    """The same, from which on the images of a dataset are stored as encoded photographs."""
    output: Path | None = None
    """Folder for the shards of photographs; without it, images are always decoded."""
    classes: int = 100_000
    canonical_bytes: int = 16 * 2**30
    """The canonical form. The service sets it by the size of the upload and by what is left of the key's storage."""

    @classmethod
    def of(cls, values: Mapping[str, Any] | None) -> Self:
        """The defaults, with `values` replaced."""
        return cls(**(values or {}))

    def check_canonical(self, size: int) -> None:
        """Check the size of a canonical form, which may be an estimate from below.

        Raises:
            UploadError: it is too large.
        """
        if size > self.canonical_bytes:
            raise UploadError(
                f"the service would store the upload as {size} bytes; the maximum is {self.canonical_bytes}, from the size of "
                "the upload and what is left of the key's storage",
                "Check that the file is complete and what its description says. Else send less data or smaller images, or delete "
                "uploads and jobs to free storage.",
            )
