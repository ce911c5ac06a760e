"""Entries of archives, inflated within bounds: bytes are counted while they come, since headers lie."""

import stat
import struct
import tempfile
import zipfile
import zlib
from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from typing import BinaryIO

from worker.distillation.errors import UploadError
from worker.distillation.limits import UploadLimits
from worker.distillation.uploads.weights_file.tar_file import Stream, TarFiles, plain

CHUNK = 2**20
RATIO_MATTERS = 2**20
"""A file may inflate to so many bytes whatever its ratio."""
ENDINGS = frozenset(
    {
        ".pt",
        ".pth",
        ".th",
        ".bin",
        ".ckpt",
        ".safetensors",
        ".npz",
        ".pkl",
        ".pickle",
        ".model",
        ".weights",
        ".tar",
        ".pyth",
    }
)
"""How names of files of weights end."""
ALONE = "Send the file of weights by itself."
BROKEN = (
    zipfile.BadZipFile,
    zlib.error,
    struct.error,
    EOFError,
    OSError,
    ValueError,
    NotImplementedError,
    RuntimeError,
)
"""What Python's readers of archives raise on bytes that make no sense."""


def pieces(stream: Stream, most: int, what: str) -> Iterator[bytes]:
    """The bytes of a stream, refused as soon as there are more than `most`.

    Raises:
        UploadError: there are more, or the stream is damaged.
    """
    count = 0
    try:
        while chunk := stream.read(CHUNK):
            count += len(chunk)
            if count > most:
                raise UploadError(f"{what} inflates to more than the {most} bytes that are read of it", ALONE)
            yield chunk
    except BROKEN as error:
        raise UploadError(f"{what} cannot be unpacked: {str(error)[:100]}", "Upload it again.") from error


def unpacked(archive: zipfile.ZipFile, entry: zipfile.ZipInfo, limits: UploadLimits, most: int) -> bytes:
    """An entry of a zip file in memory.

    Raises:
        UploadError: it is encrypted, damaged, or larger than it says or than is read.
    """
    _check(entry, limits, most)
    try:
        with archive.open(entry) as stream:
            return b"".join(pieces(stream, entry.file_size, repr(entry.filename[:100])))
    except BROKEN as error:
        raise UploadError(f"{entry.filename[:100]!r} cannot be unpacked: {str(error)[:100]}", ALONE) from error


def _check(entry: zipfile.ZipInfo, limits: UploadLimits, most: int) -> None:
    shown = repr(entry.filename[:100])
    if entry.flag_bits & 1 or entry.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
        raise UploadError(f"the archive's {shown} is encrypted or compressed in an unusual way", ALONE)
    if stat.S_IFMT(entry.external_attr >> 16) not in (0, stat.S_IFREG, stat.S_IFDIR):
        raise UploadError(f"the archive's {shown} is a link or a device", ALONE)
    if entry.file_size > RATIO_MATTERS and entry.file_size > limits.ratio * max(1, entry.compress_size):
        raise UploadError(f"the archive's {shown} inflates more than {limits.ratio} times", ALONE)
    if entry.file_size > most:
        raise UploadError(f"the archive's {shown} inflates to {entry.file_size} bytes; at most {most} are read", ALONE)


def from_zip(file: BinaryIO, listed: list[zipfile.ZipInfo], limits: UploadLimits, folder: Path) -> tuple[str, BinaryIO]:
    """The one file of weights in a zip archive, by its name and as a file without a name in `folder`.

    Raises:
        UploadError: there is none or more than one, or it cannot be unpacked within the limits.
    """
    name = _only([entry.filename for entry in listed if not entry.is_dir()])
    entry = next(each for each in listed if each.filename == name)
    _check(entry, limits, limits.unpacked_bytes)
    try:
        with zipfile.ZipFile(file) as archive, archive.open(entry) as stream:
            return name, _spooled(pieces(stream, entry.file_size, repr(name[:100])), folder)
    except BROKEN as error:
        raise UploadError(f"{name[:100]!r} cannot be unpacked: {str(error)[:100]}", ALONE) from error


def from_tar(file: BinaryIO, limits: UploadLimits, size: int, folder: Path) -> tuple[str, BinaryIO]:
    """The same of a tar archive, which may be compressed by gzip."""
    names: list[str] = []
    inner: BinaryIO | None = None
    archive = TarFiles(plain(file), _most(limits, size))
    try:
        for name, _ in archive:
            if len(names) > limits.tensors:
                raise UploadError(f"the archive holds more than {limits.tensors} files", ALONE)
            names.append(name)
            if _may_hold_weights(name) and inner is None:
                inner = _spooled(archive.chunks(), folder)
        _refuse_first_form(names)
        name = _only(names)
        if inner is not None:
            return name, inner
        raise UploadError(f"the archive's {name[:100]!r} is no file", ALONE)
    except BaseException as error:
        if inner is not None:
            inner.close()
        if isinstance(error, BROKEN):
            words = f"the tar archive cannot be unpacked: {str(error)[:100]}"
            raise UploadError(words, "Upload it again.") from error
        raise


def _refuse_first_form(names: list[str]) -> None:
    if {"pickle", "storages", "tensors"} <= set(names):
        words = "the file is a checkpoint from before torch 0.2, which is not read"
        raise UploadError(
            words, "Load it with torch 1.x, `torch.load(path)`, and save `torch.save(network.state_dict(), path)`."
        )


def _most(limits: UploadLimits, size: int) -> int:
    return min(limits.unpacked_bytes, max(RATIO_MATTERS, limits.ratio * size))


def from_gzip(file: BinaryIO, limits: UploadLimits, size: int, folder: Path) -> BinaryIO:
    """What gzip compressed."""
    return _spooled(pieces(plain(file), _most(limits, size), "the file"), folder)


def _only(names: list[str]) -> str:
    found = [name for name in names if _may_hold_weights(name)]
    if len(found) == 1:
        return found[0]
    shown = ", ".join(repr(name[:60]) for name in (found or names)[:8])
    if not found:
        raise UploadError(f"the archive holds no file of weights, but {shown or 'nothing'}", ALONE)
    raise UploadError(f"the archive holds {len(found)} files of weights ({shown})", "Send the one that is meant.")


def _may_hold_weights(name: str) -> bool:
    path = PurePosixPath(name)
    hidden = any(part.startswith((".", "__MACOSX")) for part in path.parts)
    return not hidden and path.suffix.lower() in ENDINGS


def _spooled(chunks: Iterator[bytes], folder: Path) -> BinaryIO:
    file = tempfile.TemporaryFile(dir=folder)  # noqa: SIM115  # it lives as long as the tensors that lie in it
    try:
        for chunk in chunks:
            file.write(chunk)
    except BaseException:
        file.close()
        raise
    file.seek(0)
    return file
