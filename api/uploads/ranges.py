"""Uploads that are sent in several ranges: the header `Content-Range`, and what has been received so far."""

import re
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from typing import Any

from api.http.errors import BadHeader

HEADER = re.compile(r"bytes (\d{1,15})-(\d{1,15})/(\d{1,15})", re.ASCII)
HINT = "Write it as `bytes FIRST-LAST/TOTAL`, such as `bytes 0-67108863/6000000000`."


@dataclass(frozen=True)
class ByteRange:
    """The bytes from `first` to `last`, both included, of `total`."""

    first: int
    last: int
    total: int

    @property
    def size(self) -> int:
        return self.last - self.first + 1

    @property
    def is_last(self) -> bool:
        return self.last + 1 == self.total


def parse(header: str, length: int | None) -> ByteRange:
    """The range of a PUT whose body has `length` bytes, if that is known.

    Raises:
        BadHeader: it is malformed, or does not fit the length.
    """
    found = HEADER.fullmatch(header.strip())
    if found is None:
        raise BadHeader(f"The header Content-Range is malformed. {HINT}")
    given = ByteRange(*map(int, found.groups()))
    if not given.first <= given.last < given.total:
        raise BadHeader(f"The header Content-Range does not name bytes of a whole. {HINT}")
    if length is not None and length != given.size:
        raise BadHeader(f"The body has {length} bytes, but Content-Range names {given.size}.")
    return given


def received(parts: Sequence[Any] | None) -> int:
    """Bytes that have been received in ranges; each follows the one before it."""
    return sum(int(part["size"]) for part in parts or [])


def known(parts: Sequence[Any] | None, wanted: ByteRange) -> bool:
    """Whether exactly this range has been received before, so that sending it again changes nothing."""
    place = 0
    for part in parts or []:
        if (place, int(part["size"])) == (wanted.first, wanted.size):
            return True
        place += int(part["size"])
    return False


async def discard(chunks: AsyncIterator[bytes]) -> None:
    """Read a body that is not needed."""
    async for _ in chunks:
        pass
