"""Zip archives, also those that Windows and old programs write: backslashes, and names in UTF-8 without the flag."""

import stat
import struct
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path, PurePosixPath

from worker.distillation.data.reading.archives.archive import CHUNK, RATIO_MATTERS, Archive
from worker.distillation.errors import UploadError
from worker.distillation.limits import UploadLimits

READABLE = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)
UTF8_FLAG = 0x800
BROKEN = (
    zipfile.BadZipFile,
    zlib.error,
    EOFError,
    ValueError,
    OSError,
    NotImplementedError,
    RuntimeError,
    struct.error,
)
"""What Python's zip reader raises on malformed data."""


class ZipArchive(Archive):
    """The files of a zip archive."""

    def __init__(self, opened: zipfile.ZipFile, limits: UploadLimits):
        super().__init__(limits)
        self._opened = opened
        self._entries: dict[PurePosixPath, zipfile.ZipInfo] = {}
        entries = opened.infolist()
        self.check_count(len(entries))
        for entry in entries:
            name = _name(entry)
            _check(entry, limits)
            if path := self.add(name, entry.file_size, name.endswith(("/", "\\"))):
                self._entries[path] = entry
        self.check_total()

    def head(self, path: PurePosixPath, count: int) -> bytes:
        try:
            with self._opened.open(self._entries[path]) as stream:
                return stream.read(count)
        except BROKEN:
            return b""

    def _read(self, path: PurePosixPath, most: int) -> bytearray:
        data = bytearray()
        try:
            with self._opened.open(self._entries[path]) as stream:
                while chunk := stream.read(CHUNK):
                    data += chunk
                    self.count_bytes(path, len(data), len(chunk), most)
        except BROKEN as error:
            raise UploadError(
                f"{str(path)[:120]!r} cannot be read from the archive: {error}", "Upload the archive again."
            ) from error
        return data


@contextmanager
def open_zip(path: Path, limits: UploadLimits) -> Iterator[ZipArchive]:
    """A zip archive with checked entries.

    Raises:
        UploadError: it is not a complete zip file, or an entry is a link, encrypted, outside the archive or too large.
    """
    try:
        opened = zipfile.ZipFile(path)
    except UnicodeDecodeError as error:
        raise UploadError(
            "the zip archive marks a file name as UTF-8 that is not", "Create the archive again with another program."
        ) from error
    except BROKEN as error:
        raise UploadError(
            f"the file is not a complete zip archive: {error}",
            "Its end is missing, or bytes were changed on the way: compare its size with the upload's, and send the bytes as they are"
            " (`curl -T FILE`; `curl -d @FILE` changes them).",
        ) from error
    with opened:
        yield ZipArchive(opened, limits)


def _name(entry: zipfile.ZipInfo) -> str:
    """The entry's name; without the flag for UTF-8, Python reads code page 437, but most programs write UTF-8."""
    if entry.flag_bits & UTF8_FLAG:
        return entry.orig_filename
    try:
        return entry.orig_filename.encode("cp437").decode("utf-8")
    except UnicodeError:
        return entry.orig_filename


def _check(entry: zipfile.ZipInfo, limits: UploadLimits) -> None:
    shown = repr(entry.orig_filename[:120])
    kind = stat.S_IFMT(entry.external_attr >> 16)
    if kind not in (0, stat.S_IFREG, stat.S_IFDIR):
        raise UploadError(
            f"the archive entry {shown} is a link or a device", "Put the files themselves into the archive."
        )
    if entry.flag_bits & 1 or entry.compress_type not in READABLE:
        raise UploadError(
            f"the archive entry {shown} is encrypted or uses an unsupported compression method",
            "Create the archive without a password, with deflate or no compression.",
        )
    if entry.file_size > RATIO_MATTERS and entry.file_size > limits.ratio * max(1, entry.compress_size):
        raise UploadError(
            f"the compression ratio of the archive entry {shown} is above {limits.ratio}",
            "Store the files without compression.",
        )
