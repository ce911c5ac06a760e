"""Opening a file of weights; its format is detected from its bytes, not from its name."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import BinaryIO

from worker.distillation.limits import UploadLimits
from worker.distillation.uploads.weights_file import (
    foreign,
    npz_file,
    safetensors_file,
    tar_file,
    torch_legacy,
    torch_zip,
    unpacking,
    zip_directory,
)
from worker.distillation.uploads.weights_file.contents import Contents

ZIP, GZIP = b"PK\x03\x04", b"\x1f\x8b"
_OLD_PICKLES = (
    b"}q",
    b"]q",
    b"(dp",
    b"(lp",
    b"(i__main__",
    b"ccollections\n",
    b"ccopy_reg\n",
    b"c__main__\n",
    b"ctorch",
)
"""First bytes of pickles without a protocol opcode."""


@contextmanager
def opened(path: Path, limits: UploadLimits) -> Iterator[Contents]:
    """The content of a file; its tensors can be read until the end of the block.

    An archive that contains one file of weights is unpacked to an unnamed temporary file in the same folder.

    Raises:
        UploadError: the format is not supported; the message says what the file is, the hint how to convert it.
    """
    files: list[BinaryIO] = []
    try:
        file = path.open("rb")
        files.append(file)
        yield _contents(file, limits, path.parent, files, may_unpack=True)
    finally:
        for each in files:
            each.close()


def _contents(file: BinaryIO, limits: UploadLimits, folder: Path, files: list[BinaryIO], may_unpack: bool) -> Contents:
    size = file.seek(0, 2)
    file.seek(0)
    head = file.read(64)
    if head.startswith(ZIP):
        return _of_zip(file, size, limits, folder, files, may_unpack)
    if safetensors_file.is_safetensors(head):
        return safetensors_file.read(file, size, limits)
    if (head[:1] == b"\x80" and 0 < head[1] < 6 if len(head) > 1 else False) or head.startswith(_OLD_PICKLES):
        return torch_legacy.read(file, size, limits)
    if may_unpack and (head.startswith(GZIP) or tar_file.is_tar(file)):
        return _of_tar(file, size, limits, folder, files)
    raise foreign.refusal(file, size)


def _of_zip(
    file: BinaryIO, size: int, limits: UploadLimits, folder: Path, files: list[BinaryIO], may_unpack: bool
) -> Contents:
    listed = zip_directory.entries(file, size, limits)
    names = [entry.filename for entry in listed]
    foreign.refuse_program(names)
    if torch_zip.is_torch(names):
        return torch_zip.read(file, size, listed, limits)
    if names and all(name.endswith(".npy") for name in names):
        return npz_file.read(file, listed, limits)
    if not may_unpack:
        raise foreign.refusal(file, size)
    name, inner = unpacking.from_zip(file, listed, limits, folder)
    return _within("zip", name, inner, limits, folder, files)


def _of_tar(file: BinaryIO, size: int, limits: UploadLimits, folder: Path, files: list[BinaryIO]) -> Contents:
    if not tar_file.is_tar(file):
        return _within("gzip", "", unpacking.from_gzip(file, limits, size, folder), limits, folder, files)
    name, inner = unpacking.from_tar(file, limits, size, folder)
    return _within("tar", name, inner, limits, folder, files)


def _within(
    archive: str, name: str, inner: BinaryIO, limits: UploadLimits, folder: Path, files: list[BinaryIO]
) -> Contents:
    files.append(inner)
    found = _contents(inner, limits, folder, files, may_unpack=False)
    where = f" ({name[-100:]})" if name else ""
    return replace(found, container=f"{found.container} in {archive}{where}")
