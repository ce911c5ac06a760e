"""Chunks of bytes for writes to storage, with their size and hash."""

import asyncio
import errno
import hashlib
import tempfile
from collections.abc import AsyncIterable, AsyncIterator, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from models.storage.errors import Full, TooLarge, Unavailable

READ = 2**18
"""Size of a read from a folder: a download holds a few of them."""
BLOCK = 2**20
"""Bytes that are received from a client, or written to a folder at once."""
CHUNK = 4 * 2**20
"""Bytes of one read from a bucket. Each is a request."""
PART = 8 * 2**20
"""Bytes of one part of a multipart write. S3 allows 10,000 parts."""


@dataclass(frozen=True)
class Stored:
    """A written blob: size in bytes, and SHA-256 in hex."""

    size: int
    sha256: str


class Tally:
    """Counts and hashes bytes, up to a limit."""

    def __init__(self, key: str, limit: int | None = None):
        self.key = key
        self.limit = limit
        self.size = 0
        self._hash = hashlib.sha256()

    def add(self, chunk: bytes) -> bytes:
        self.count(chunk)
        self.hash(chunk)
        return chunk

    def count(self, chunk: bytes) -> None:
        """The first half of `add`."""
        self.size += len(chunk)
        if self.limit is not None and self.size > self.limit:
            raise TooLarge(self.key, self.limit)

    def hash(self, chunk: bytes) -> None:
        """The second half of `add`; must be called in the order of the chunks."""
        self._hash.update(chunk)

    def total(self) -> Stored:
        return Stored(self.size, self._hash.hexdigest())


async def blocks_of(chunks: AsyncIterable[bytes]) -> AsyncIterator[bytes]:
    """The same bytes in blocks of `BLOCK` or a little more; the last may be smaller."""
    gathered: list[bytes] = []
    size = 0
    async for chunk in chunks:
        gathered.append(chunk)
        size += len(chunk)
        if size >= BLOCK:
            yield b"".join(gathered)
            gathered = []
            size = 0
    if size:
        yield b"".join(gathered)


async def parts_of(blocks: AsyncIterable[bytes], folder: Path) -> AsyncIterator[bytes]:
    """The same bytes in parts of `PART` or a little more; the last may be smaller.

    A part is collected in an unnamed file in `folder`, so that a slow client takes no memory.

    Raises:
        Full, Unavailable: the folder has no room for a part, or cannot be used.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        file = tempfile.TemporaryFile(dir=folder, buffering=0)  # noqa: SIM115 - closed below
    except OSError as error:
        raise _unusable(error) from error
    with file:
        async for block in blocks:
            await asyncio.to_thread(_add, file, block)
            if file.tell() >= PART:
                yield await asyncio.to_thread(_taken, file)
        if file.tell():
            yield await asyncio.to_thread(_taken, file)


def _unusable(error: OSError) -> Unavailable:
    full = error.errno in (errno.ENOSPC, errno.EDQUOT)
    return (Full if full else Unavailable)("", f"a part of an upload cannot be kept on disk: {error}")


def _add(file: IO[bytes], block: bytes) -> None:
    view = memoryview(block)
    try:
        while view:
            view = view[file.write(view) :]
    except OSError as error:
        raise _unusable(error) from error


def _taken(file: IO[bytes]) -> bytes:
    """All bytes of a file, which is empty afterwards."""
    file.seek(0)
    data = file.read()
    file.seek(0)
    file.truncate()
    return data


def chunks_of(data: bytes | Path | Iterable[bytes]) -> Iterator[bytes]:
    """The chunks of bytes, of a file, or of an iterable, without empty ones."""
    if isinstance(data, bytes):
        yield from (data[offset : offset + PART] for offset in range(0, len(data), PART))
    elif isinstance(data, Path):
        with data.open("rb") as file:
            while chunk := file.read(CHUNK):
                yield chunk
    else:
        yield from (chunk for chunk in data if chunk)
