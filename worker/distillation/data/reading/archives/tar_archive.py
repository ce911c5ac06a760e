"""Tar archives, plain or compressed with gzip, bzip2 or xz.

A compressed one is decompressed into a temporary file beside the upload first, since its entries are read in any order.
The headers are read here and not by `tarfile`, whose extended headers may be as large as the archive says.
"""

import bz2
import gzip
import lzma
import tempfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path, PurePosixPath
from typing import IO, Any

from worker.distillation.data.reading.archives import foreign
from worker.distillation.data.reading.archives.archive import CHUNK, RATIO_MATTERS, Archive
from worker.distillation.errors import UploadError
from worker.distillation.limits import UploadLimits

BLOCK = 512
LONGEST_HEADER = 2**20
"""Bytes of an extended header, which holds a long name."""
XZ_MEMORY = 256 * 2**20
COMPRESSED = {b"\x1f\x8b": "gzip", b"BZh": "bzip2", b"\xfd7zXZ\x00": "xz"}
BROKEN = (OSError, EOFError, ValueError, zlib.error, lzma.LZMAError)
FILE = b"0\0" + b"7"
FOLDER = b"5"
LONG_NAME = b"L"
LONG_LINK = b"K"
EXTENDED = b"x"
GLOBAL = b"g"
HINT = "Create the archive again, or send a zip."


class TarArchive(Archive):
    """The files of a plain tar archive."""

    def __init__(self, file: IO[bytes], limits: UploadLimits):
        super().__init__(limits)
        self._file = file
        self._places: dict[PurePosixPath, int] = {}
        self._length = file.seek(0, 2)
        self._list()
        self.check_total()

    def head(self, path: PurePosixPath, count: int) -> bytes:
        self._file.seek(self._places[path])
        return self._file.read(min(count, self.files[path]))

    def _read(self, path: PurePosixPath, most: int) -> bytearray:
        self._file.seek(self._places[path])
        data = bytearray(self._file.read(self.files[path]))
        self.count_bytes(path, len(data), len(data), most)
        return data

    def _list(self) -> None:
        place, extended = 0, dict[str, str]()
        while header := self._header(place):
            self.count_entry()
            kind = header[156:157]
            size = int(extended["size"]) if kind in FILE and extended.get("size", "").isdecimal() else _number(header)
            place += BLOCK
            if size < 0 or place + size > self._length:
                raise UploadError("the tar archive is truncated", HINT)
            if kind in (LONG_NAME, EXTENDED):
                extended |= _extension(kind, self._bytes(place, size))
            elif kind not in (LONG_LINK, GLOBAL):
                self._add(extended.get("path") or _path(header), kind, size, place)
                extended = {}
            place += -(-size // BLOCK) * BLOCK

    def _header(self, place: int) -> bytes:
        """The header at `place`; nothing at the end of the archive."""
        self._file.seek(place)
        header = self._file.read(BLOCK)
        if len(header) < BLOCK:
            raise UploadError("the tar archive is truncated: its end mark is missing", HINT)
        if not any(header):
            return b""
        if sum(header) - sum(header[148:156]) + 8 * 32 != _octal(header[148:156]):
            if place == 0 and header[257:262] != b"ustar":
                foreign.refuse(header)
                raise UploadError(
                    "the compressed file holds no tar archive", "Send a zip, or the file itself without compression."
                )
            raise UploadError(f"the tar archive is damaged at byte {place}", HINT)
        return header

    def _bytes(self, place: int, size: int) -> bytes:
        if size > LONGEST_HEADER:
            raise UploadError(f"the tar archive has a header of {size} bytes; the maximum is {LONGEST_HEADER}", HINT)
        self._file.seek(place)
        return self._file.read(size)

    def _add(self, name: str, kind: bytes, size: int, place: int) -> None:
        if kind not in FILE and kind != FOLDER:
            words = f"the archive entry {name[:120]!r} is a link or a device"
            raise UploadError(words, "Put the files themselves into the archive.")
        if path := self.add(name, size, kind == FOLDER or name.endswith("/")):
            self._places[path] = place


def is_tar(path: Path) -> bool:
    """Whether the file begins as a tar archive, or as a compressed file."""
    with path.open("rb") as file:
        head = file.read(BLOCK)
    return any(head.startswith(magic) for magic in COMPRESSED) or head[257:262] == b"ustar"


@contextmanager
def open_tar(path: Path, limits: UploadLimits) -> Iterator[TarArchive]:
    """A tar archive with checked entries.

    Raises:
        UploadError: it is damaged, or an entry is a link, outside the archive or too large.
    """
    with path.open("rb") as file:
        head = file.read(8)
        method = next((name for magic, name in COMPRESSED.items() if head.startswith(magic)), None)
        file.seek(0)
        if method is None:
            yield TarArchive(file, limits)
            return
        with tempfile.TemporaryFile(dir=path.parent) as plain:
            _decompress(file, plain, method, limits, path.stat().st_size)
            yield TarArchive(plain, limits)


def _decompress(file: IO[bytes], plain: IO[bytes], method: str, limits: UploadLimits, stored: int) -> None:
    most = min(2 * limits.inflated_bytes, max(RATIO_MATTERS, limits.ratio * stored))
    total = 0
    try:
        stream = _stream(file, method)
        while chunk := stream.read(CHUNK):
            total += len(chunk)
            if total > most:
                words = f"the archive is larger than {most} bytes when decompressed, or its compression ratio is above"
                raise UploadError(f"{words} {limits.ratio}", "Send fewer images, or store them without compression.")
            plain.write(chunk)
    except BROKEN as error:
        raise UploadError(
            f"the {method} archive is damaged: {str(error)[:200]}", "Upload the archive again."
        ) from error


def _stream(file: IO[bytes], method: str) -> Any:
    if method == "xz":
        return _Xz(file)
    return gzip.GzipFile(fileobj=file) if method == "gzip" else bz2.BZ2File(file)


class _Xz:
    """An xz stream that is decompressed within a bound of memory."""

    def __init__(self, file: IO[bytes]):
        self._file = file
        self._decoder = lzma.LZMADecompressor(lzma.FORMAT_XZ, memlimit=XZ_MEMORY)

    def read(self, count: int) -> bytes:
        while not self._decoder.eof:
            given = self._file.read(CHUNK) if self._decoder.needs_input else b""
            if self._decoder.needs_input and not given:
                raise EOFError("it ends too early")
            if read := self._decoder.decompress(given, count):
                return read
        return b""


def _octal(field: bytes) -> int:
    text = field.strip(b" \0")
    try:
        return int(text, 8) if text else 0
    except ValueError:
        return -1


def _number(header: bytes) -> int:
    """The size that a header states: octal, or base 256 where the first bit is set."""
    field = header[124:136]
    return int.from_bytes(field[1:], "big") if field[0] == 0x80 else _octal(field)


def _path(header: bytes) -> str:
    name, prefix = (_text(header[start:end]) for start, end in ((0, 100), (345, 500)))
    return f"{prefix}/{name}" if prefix and header[257:263] == b"ustar\0" else name


def _text(field: bytes) -> str:
    field = field.split(b"\0", 1)[0]
    try:
        return field.decode("utf-8")
    except UnicodeDecodeError:
        return field.decode("latin-1")


def _extension(kind: bytes, data: bytes) -> dict[str, str]:
    """The `path` and the `size` that a GNU long name or the records of a pax header give to the next entry."""
    if kind == LONG_NAME:
        return {"path": _text(data)}
    found: dict[str, str] = {}
    while data:
        length, _, _ = data.partition(b" ")
        end = int(length) if length.isdigit() and len(length) < 8 else 0
        if not len(length) + 1 < end <= len(data):
            raise UploadError("the tar archive has a damaged pax header", HINT)
        name, _, value = data[len(length) + 1 : end - 1].partition(b"=")
        if name in (b"path", b"size"):
            found[_text(name)] = _text(value)
        elif name.startswith(b"GNU.sparse"):
            raise UploadError("the tar archive holds a sparse file", "Create it without the option --sparse.")
        data = data[end:]
    return found
