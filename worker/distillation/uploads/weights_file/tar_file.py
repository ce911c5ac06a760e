"""Streaming reader of tar archives, optionally compressed by gzip: only regular files, one chunk in memory at a time.

Python's own reader keeps a header's whole extension in memory, whatever its size; this reader limits it.
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
"""Largest size in bytes of a long name or another extension header."""
AGAIN = "Create the archive again, or send only the file of weights."
_PATH = re.compile(rb"\d+ path=([^\n]{1,4096})\n")


class Stream(Protocol):
    def read(self, size: int, /) -> bytes: ...


def is_tar(file: BinaryIO) -> bool:
    """Whether the file, uncompressed if it is gzip, has the magic bytes of a tar archive."""
    try:
        return plain(file).read(BLOCK)[257:262] == b"ustar"
    except (OSError, EOFError, zlib.error):
        return False


def plain(file: BinaryIO) -> Stream:
    """The file from its beginning, uncompressed if it is gzip."""
    file.seek(0)
    compressed = file.read(2) == b"\x1f\x8b"
    file.seek(0)
    return gzip.GzipFile(fileobj=file) if compressed else file


class TarFiles:
    """The regular files of an archive, in order; `chunks` returns the bytes of the current file once."""

    def __init__(self, stream: Stream, most: int):
        self._stream = stream
        self._left = most
        self._most = most
        self._pending = 0

    def __iter__(self) -> Iterator[tuple[str, int]]:
        """Name and size of each file; unread bytes are skipped.

        Raises:
            UploadError: the archive is damaged, cut short or too large.
        """
        long_name: str | None = None
        while (header := self._exactly(BLOCK, may_end=True)) and header.strip(b"\0"):
            size, kind = self._size(header), header[156:157]
            padding = -size % BLOCK
            if kind in (b"L", b"K", b"x", b"g"):
                if size > MOST_EXTENSION:
                    raise UploadError(
                        f"a header of the tar archive has {size} bytes; the maximum is {MOST_EXTENSION}", AGAIN
                    )
                extension = self._exactly(size + padding)[:size]
                long_name = _long_name(kind, extension) or long_name
                continue
            self._pending = size
            if kind in (b"0", b"\0"):
                yield long_name or _name(header), size
            long_name = None
            for _ in self.chunks():
                pass
            self._exactly(padding)

    def chunks(self) -> Iterator[bytes]:
        """The rest of the current file."""
        while self._pending:
            data = self._exactly(min(CHUNK, self._pending))
            self._pending -= len(data)
            yield data

    def _size(self, header: bytes) -> int:
        """The file size in a header; the header's checksum must be right."""
        try:
            checksum, size = (int(header[a:b].strip(b" \0") or b"0", 8) for a, b in ((148, 156), (124, 136)))
        except ValueError as error:
            raise UploadError("a header of the tar archive is malformed", AGAIN) from error
        if checksum != sum(header) - sum(header[148:156]) + 8 * ord(" ") or size < 0:
            raise UploadError("a header of the tar archive is malformed", AGAIN)
        return size

    def _exactly(self, size: int, may_end: bool = False) -> bytes:
        pieces, missing = [], size
        while missing and (data := self._stream.read(missing)):
            pieces.append(data)
            missing -= len(data)
        self._left -= size
        if self._left < 0:
            raise UploadError(f"the uncompressed archive is larger than {self._most} bytes", AGAIN)
        if missing and not (may_end and missing == size):
            raise UploadError(f"the tar archive is cut short: at least {missing} bytes are missing", AGAIN)
        return b"".join(pieces)


def _name(header: bytes) -> str:
    prefix = header[345:500].rstrip(b"\0") if header[257:263] == b"ustar\0" else b""
    name = header[:100].partition(b"\0")[0]
    return (prefix.partition(b"\0")[0] + b"/" + name if prefix else name).decode("utf-8", errors="replace")


def _long_name(kind: bytes, extension: bytes) -> str | None:
    if kind == b"L":
        return extension.rstrip(b"\0").decode("utf-8", errors="replace")
    found = _PATH.search(extension) if kind == b"x" else None
    return found.group(1).decode("utf-8", errors="replace") if found else None
