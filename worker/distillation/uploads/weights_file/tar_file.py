"""Tar archives as a stream, compressed by gzip or not: regular files alone, names as names, nothing held but one block.

Python's own reader keeps a header's whole extension in memory, however large it says it is; this one bounds it.
"""

import gzip
import re
import zlib
from collections.abc import Iterator
from typing import BinaryIO, Protocol

from worker.distillation.errors import UploadError

BLOCK = 512
CHUNK = 2**20
MOST_EXTENSION = 2**16
"""Bytes of a long name or of other words that precede a file."""
AGAIN = "Make the archive again, or send the file of weights by itself."
_PATH = re.compile(rb"\d+ path=([^\n]{1,4096})\n")


class Stream(Protocol):
    def read(self, size: int, /) -> bytes: ...


def is_tar(file: BinaryIO) -> bool:
    """Whether a tar archive's mark lies where it does, after inflating where the file is compressed by gzip."""
    try:
        return plain(file).read(BLOCK)[257:262] == b"ustar"
    except (OSError, EOFError, zlib.error):
        return False


def plain(file: BinaryIO) -> Stream:
    """The file from its beginning, inflated if gzip compressed it."""
    file.seek(0)
    compressed = file.read(2) == b"\x1f\x8b"
    file.seek(0)
    return gzip.GzipFile(fileobj=file) if compressed else file


class TarFiles:
    """The regular files of an archive, one after the other; of each, `chunks` gives the bytes once."""

    def __init__(self, stream: Stream, most: int):
        self._stream, self._left, self._most = stream, most, most
        self._pending = 0

    def __iter__(self) -> Iterator[tuple[str, int]]:
        """Name and size of each; what was not read of it is skipped.

        Raises:
            UploadError: the archive is damaged, cut short, or larger than is read.
        """
        long_name: str | None = None
        while (header := self._exactly(BLOCK, may_end=True)) and header.strip(b"\0"):
            size, kind = self._size(header), header[156:157]
            padding = -size % BLOCK
            if kind in (b"L", b"K", b"x", b"g"):
                if size > MOST_EXTENSION:
                    raise UploadError(f"a header of the tar archive has {size} bytes", AGAIN)
                words = self._exactly(size + padding)[:size]
                long_name = _long_name(kind, words) or long_name
                continue
            self._pending = size
            if kind in (b"0", b"\0"):
                yield long_name or _name(header), size
            long_name = None
            for _ in self.chunks():
                pass
            self._exactly(padding)

    def chunks(self) -> Iterator[bytes]:
        """What is left of the file that the iteration stands at."""
        while self._pending:
            data = self._exactly(min(CHUNK, self._pending))
            self._pending -= len(data)
            yield data

    def _size(self, header: bytes) -> int:
        """The size that a header says, whose checksum must be right."""
        try:
            said, size = (int(header[a:b].strip(b" \0") or b"0", 8) for a, b in ((148, 156), (124, 136)))
        except ValueError as error:
            raise UploadError("a header of the tar archive is malformed", AGAIN) from error
        if said != sum(header) - sum(header[148:156]) + 8 * ord(" ") or size < 0:
            raise UploadError("a header of the tar archive is malformed", AGAIN)
        return size

    def _exactly(self, size: int, may_end: bool = False) -> bytes:
        pieces, missing = [], size
        while missing and (data := self._stream.read(missing)):
            pieces.append(data)
            missing -= len(data)
        self._left -= size
        if self._left < 0:
            raise UploadError(f"the archive inflates to more than the {self._most} bytes that are read of it", AGAIN)
        if missing and not (may_end and missing == size):
            raise UploadError(f"the tar archive is cut short: at least {missing} bytes are missing", AGAIN)
        return b"".join(pieces)


def _name(header: bytes) -> str:
    prefix = header[345:500].rstrip(b"\0") if header[257:263] == b"ustar\0" else b""
    name = header[:100].partition(b"\0")[0]
    return (prefix.partition(b"\0")[0] + b"/" + name if prefix else name).decode("utf-8", errors="replace")


def _long_name(kind: bytes, words: bytes) -> str | None:
    if kind == b"L":
        return words.rstrip(b"\0").decode("utf-8", errors="replace")
    found = _PATH.search(words) if kind == b"x" else None
    return found.group(1).decode("utf-8", errors="replace") if found else None
