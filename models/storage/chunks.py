"""Chunks of bytes for writes to storage, with their size and hash."""

import hashlib
from collections.abc import AsyncIterable, AsyncIterator, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from models.storage.errors import TooLarge

CHUNK = 4 * 2**20
"""Bytes of one read."""
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
    """The same bytes in blocks of `CHUNK` or a little more; the last may be smaller."""
    gathered: list[bytes] = []
    size = 0
    async for chunk in chunks:
        gathered.append(chunk)
        size += len(chunk)
        if size >= CHUNK:
            yield b"".join(gathered)
            gathered = []
            size = 0
    if size:
        yield b"".join(gathered)


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
