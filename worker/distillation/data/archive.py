"""Untrusted zip files: every entry is checked before it is read, and bytes are counted while they are decompressed.

Nothing is extracted to disk. Entries are read into memory one at a time, and their names are never used as paths.
"""

import stat
import struct
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path, PurePosixPath

from worker.distillation.errors import UploadError
from worker.distillation.limits import UploadLimits

RATIO_MATTERS = 2**20
"""Uncompressed bytes up to which the compression ratio of an entry is not limited."""
CHUNK = 2**20
READABLE = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)
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


class Archive:
    """The files of a zip archive, by path. `files` excludes folders and the metadata files of macOS and Windows."""

    def __init__(self, opened: zipfile.ZipFile, limits: UploadLimits):
        self._opened = opened
        self._limits = limits
        self._inflated = 0
        entries = opened.infolist()
        if len(entries) > limits.entries:
            raise UploadError(
                f"the archive has {len(entries)} entries; the maximum is {limits.entries}", "Send fewer files."
            )
        self.files: dict[PurePosixPath, zipfile.ZipInfo] = {}
        for entry in entries:
            _check(entry, limits)
            path = PurePosixPath(entry.filename)
            if entry.is_dir() or _is_system_file(path):
                continue
            if path in self.files:
                raise UploadError(f"the archive contains {str(path)[:120]!r} twice", "Create the archive again.")
            self.files[path] = entry
        if sum(entry.file_size for entry in self.files.values()) > limits.inflated_bytes:
            raise UploadError(
                f"the uncompressed archive is larger than {limits.inflated_bytes} bytes",
                "Send fewer or smaller images.",
            )

    def read(self, path: PurePosixPath, most: int | None = None) -> bytearray:
        """The bytes of a file, at most `most` (default: the limit for one entry).

        Raises:
            UploadError: the uncompressed file is larger than that or than its header states, or is damaged.
        """
        entry = self.files[path]
        data = bytearray()
        most = min(entry.file_size, self._limits.entry_bytes if most is None else most)
        if entry.file_size > most:
            raise UploadError(
                f"{str(path)[:120]!r} has {entry.file_size} bytes; the maximum is {most}", "Send smaller files."
            )
        try:
            with self._opened.open(entry) as stream:
                while chunk := stream.read(CHUNK):
                    data += chunk
                    self._inflated += len(chunk)
                    if len(data) > most or self._inflated > 2 * self._limits.inflated_bytes:
                        raise UploadError(
                            f"{str(path)[:120]!r} is larger than its header states", "Create the archive again."
                        )
        except BROKEN as error:
            raise UploadError(
                f"{str(path)[:120]!r} cannot be read from the archive: {error}", "Upload the archive again."
            ) from error
        if len(data) != entry.file_size:
            raise UploadError(f"{str(path)[:120]!r} is truncated in the archive", "Upload the archive again.")
        return data


@contextmanager
def open_archive(path: Path, limits: UploadLimits) -> Iterator[Archive]:
    """A zip archive with checked entries.

    Raises:
        UploadError: it is not a complete zip file, or an entry is a link, encrypted, outside the archive or too large.
    """
    try:
        opened = zipfile.ZipFile(path)
    except BROKEN as error:
        raise UploadError(
            f"the file is not a complete zip archive: {error}", "Send a zip of class folders, or an npz file."
        ) from error
    with opened:
        yield Archive(opened, limits)


def _check(entry: zipfile.ZipInfo, limits: UploadLimits) -> None:
    shown = repr(entry.filename[:120])
    parts = entry.filename.rstrip("/").split("/")
    if (
        entry.filename.startswith("/")
        or {"", ".", ".."} & set(parts)
        or "\\" in entry.filename
        or ":" in parts[0]
        or "\0" in entry.orig_filename
    ):
        raise UploadError(
            f"the path of the archive entry {shown} is not relative to the archive",
            "Create the archive from within its folder.",
        )
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


def _is_system_file(path: PurePosixPath) -> bool:
    return (
        path.parts[0] == "__MACOSX"
        or any(part.startswith(".") for part in path.parts)
        or path.name in ("Thumbs.db", "desktop.ini")
    )
