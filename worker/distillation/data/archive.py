"""Zip files that strangers sent: every entry is checked before it is read, and bytes are counted while they inflate.

Nothing is ever unpacked to a folder: entries are read into memory one at a time, and names are only names.
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
"""An entry may inflate to so many bytes whatever its ratio."""
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
"""What Python's zip reader raises on bytes that make no sense."""


class Archive:
    """The files of a zip archive, by path: `files` leaves out folders and what macOS and Windows put beside them."""

    def __init__(self, opened: zipfile.ZipFile, limits: UploadLimits):
        self._opened, self._limits = opened, limits
        self._inflated = 0
        entries = opened.infolist()
        if len(entries) > limits.entries:
            raise UploadError(
                f"the archive has {len(entries)} entries; at most {limits.entries} are read", "Send fewer files."
            )
        self.files: dict[PurePosixPath, zipfile.ZipInfo] = {}
        for entry in entries:
            _check(entry, limits)
            path = PurePosixPath(entry.filename)
            if entry.is_dir() or _is_litter(path):
                continue
            if path in self.files:
                raise UploadError(f"the archive holds {str(path)[:120]!r} twice", "Make the archive again.")
            self.files[path] = entry
        if sum(entry.file_size for entry in self.files.values()) > limits.inflated_bytes:
            raise UploadError(
                f"the archive inflates to more than {limits.inflated_bytes} bytes",
                "Send less data, or smaller pictures.",
            )

    def read(self, path: PurePosixPath, most: int | None = None) -> bytearray:
        """The bytes of a file, at most `most` (by default the limit for one entry).

        Raises:
            UploadError: it inflates to more than that or than its header says, or is damaged.
        """
        entry, data = self.files[path], bytearray()
        most = min(entry.file_size, self._limits.entry_bytes if most is None else most)
        if entry.file_size > most:
            raise UploadError(
                f"{str(path)[:120]!r} has {entry.file_size} bytes; at most {most} are read", "Send smaller files."
            )
        try:
            with self._opened.open(entry) as stream:
                while chunk := stream.read(CHUNK):
                    data += chunk
                    self._inflated += len(chunk)
                    if len(data) > most or self._inflated > 2 * self._limits.inflated_bytes:
                        raise UploadError(
                            f"{str(path)[:120]!r} inflates to more than it says", "Make the archive again."
                        )
        except BROKEN as error:
            raise UploadError(
                f"{str(path)[:120]!r} cannot be read from the archive: {error}", "Upload the archive again."
            ) from error
        if len(data) != entry.file_size:
            raise UploadError(f"{str(path)[:120]!r} is cut short in the archive", "Upload the archive again.")
        return data


@contextmanager
def open_archive(path: Path, limits: UploadLimits) -> Iterator[Archive]:
    """A zip archive whose entries have been checked.

    Raises:
        UploadError: it is no whole zip file, or an entry is a link, encrypted, outside of the archive or too large.
    """
    try:
        opened = zipfile.ZipFile(path)
    except BROKEN as error:
        raise UploadError(
            f"the file is not a whole zip archive: {error}", "Send a zip of class folders, or an npz file."
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
            f"the archive's entry {shown} points outside of the archive", "Make the archive from within its folder."
        )
    kind = stat.S_IFMT(entry.external_attr >> 16)
    if kind not in (0, stat.S_IFREG, stat.S_IFDIR):
        raise UploadError(
            f"the archive's entry {shown} is a link or a device", "Put the files themselves into the archive."
        )
    if entry.flag_bits & 1 or entry.compress_type not in READABLE:
        raise UploadError(
            f"the archive's entry {shown} is encrypted or compressed in an unusual way", "Make a plain zip archive."
        )
    if entry.file_size > RATIO_MATTERS and entry.file_size > limits.ratio * max(1, entry.compress_size):
        raise UploadError(
            f"the archive's entry {shown} inflates more than {limits.ratio} times",
            "Store the files without compression.",
        )


def _is_litter(path: PurePosixPath) -> bool:
    return (
        path.parts[0] == "__MACOSX"
        or any(part.startswith(".") for part in path.parts)
        or path.name in ("Thumbs.db", "desktop.ini")
    )
