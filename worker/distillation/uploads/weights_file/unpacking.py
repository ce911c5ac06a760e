"""Bounded unpacking of archive entries: bytes are counted while reading, because headers can be wrong."""

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
"""Uncompressed bytes up to which the compression ratio is not limited."""
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
"""File name endings of weight files."""
ALONE = "Send only the file of weights, without an archive."
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
"""Exceptions of Python's archive readers for damaged files."""


def pieces(stream: Stream, most: int, what: str) -> Iterator[bytes]:
    """The bytes of a stream, at most `most`.

    Raises:
        UploadError: there are more bytes, or the stream is damaged.
    """
    count = 0
    try:
        while chunk := stream.read(CHUNK):
            count += len(chunk)
            if count > most:
                raise UploadError(f"{what} is larger than {most} bytes when uncompressed", ALONE)
            yield chunk
    except BROKEN as error:
        raise UploadError(f"{what} cannot be unpacked: {str(error)[:100]}", "Upload the complete file.") from error


def unpacked(archive: zipfile.ZipFile, entry: zipfile.ZipInfo, limits: UploadLimits, most: int) -> bytes:
    """Read an entry of a zip file into memory.

    Raises:
        UploadError: it is encrypted, damaged, larger than its header says, or too large.
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
        raise UploadError(f"the archive entry {shown} is encrypted or has an unsupported compression", ALONE)
    if stat.S_IFMT(entry.external_attr >> 16) not in (0, stat.S_IFREG, stat.S_IFDIR):
        raise UploadError(f"the archive entry {shown} is a link or a device", ALONE)
    if entry.file_size > RATIO_MATTERS and entry.file_size > limits.ratio * max(1, entry.compress_size):
        raise UploadError(f"the compression ratio of the archive entry {shown} is above {limits.ratio}", ALONE)
    if entry.file_size > most:
        raise UploadError(
            f"the archive entry {shown} has {entry.file_size} bytes uncompressed; the maximum is {most}", ALONE
        )


def from_zip(file: BinaryIO, listed: list[zipfile.ZipInfo], limits: UploadLimits, folder: Path) -> tuple[str, BinaryIO]:
    """The only file of weights in a zip archive: its name, and an unnamed temporary file in `folder` with its content.

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
    """The same for a tar archive, which may be compressed by gzip."""
    names: list[str] = []
    inner: BinaryIO | None = None
    archive = TarFiles(plain(file), _most(limits, size))
    try:
        for name, _ in archive:
            if len(names) > limits.tensors:
                raise UploadError(f"the archive has too many files; the maximum is {limits.tensors}", ALONE)
            names.append(name)
            if _may_hold_weights(name) and inner is None:
                inner = _spooled(archive.chunks(), folder)
        _refuse_first_form(names)
        name = _only(names)
        if inner is not None:
            return name, inner
        raise UploadError(f"the archive entry {name[:100]!r} is not a regular file", ALONE)
    except BaseException as error:
        if inner is not None:
            inner.close()
        if isinstance(error, BROKEN):
            message = f"the tar archive cannot be unpacked: {str(error)[:100]}"
            raise UploadError(message, "Upload the complete file.") from error
        raise


def _refuse_first_form(names: list[str]) -> None:
    if {"pickle", "storages", "tensors"} <= set(names):
        message = "the file is a checkpoint from before torch 0.2, which is not supported"
        raise UploadError(
            message,
            "Load it with `torch.load(path)` of torch 1.x, and save it with `torch.save(network.state_dict(), path)`.",
        )


def _most(limits: UploadLimits, size: int) -> int:
    return min(limits.unpacked_bytes, max(RATIO_MATTERS, limits.ratio * size))


def from_gzip(file: BinaryIO, limits: UploadLimits, size: int, folder: Path) -> BinaryIO:
    """The content of a gzip file, as an unnamed temporary file in `folder`."""
    return _spooled(pieces(plain(file), _most(limits, size), "the file"), folder)


def _only(names: list[str]) -> str:
    found = [name for name in names if _may_hold_weights(name)]
    if len(found) == 1:
        return found[0]
    shown = ", ".join(repr(name[:60]) for name in (found or names)[:8])
    if not found:
        raise UploadError(f"the archive contains no file of weights, but {shown or 'nothing'}", ALONE)
    message = f"the archive contains {len(found)} files of weights ({shown})"
    raise UploadError(message, "Send only the file that you want to use.")


def _may_hold_weights(name: str) -> bool:
    path = PurePosixPath(name)
    hidden = any(part.startswith((".", "__MACOSX")) for part in path.parts)
    return not hidden and path.suffix.lower() in ENDINGS


def _spooled(chunks: Iterator[bytes], folder: Path) -> BinaryIO:
    file = tempfile.TemporaryFile(dir=folder)  # noqa: SIM115  # it stays open as long as its tensors are used
    try:
        for chunk in chunks:
            file.write(chunk)
    except BaseException:
        file.close()
        raise
    file.seek(0)
    return file
