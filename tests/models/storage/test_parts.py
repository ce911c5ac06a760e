"""The parts of a stream that is written to a bucket."""

import asyncio
import hashlib
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from models.storage.chunks import PART, parts_of
from models.storage.errors import Full, Unavailable


async def blocks(sizes: list[int]) -> AsyncIterator[bytes]:
    for number, size in enumerate(sizes):
        yield bytes([number % 256]) * size


def parts(sizes: list[int], folder: Path) -> list[bytes]:
    async def gathered() -> list[bytes]:
        return [part async for part in parts_of(blocks(sizes), folder)]

    return asyncio.run(gathered())


@pytest.mark.parametrize(
    "sizes", [[], [1], [PART], [PART - 1, 1], [2**20] * 20, [3 * 2**20 + 7] * 9, [PART * 2 + 5, 1]]
)
def test_parts_are_large_and_have_the_bytes_of_the_stream(sizes: list[int], tmp_path: Path) -> None:
    found = parts(sizes, tmp_path / "new")
    whole = b"".join(bytes([number % 256]) * size for number, size in enumerate(sizes))
    assert hashlib.sha256(b"".join(found)).digest() == hashlib.sha256(whole).digest()
    assert all(len(part) >= PART for part in found[:-1])
    assert list((tmp_path / "new").iterdir()) == []


def test_a_disk_without_room_is_full_and_a_folder_that_cannot_be_used_is_unavailable(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "file"
    file.write_bytes(b"")
    with pytest.raises(Unavailable):
        parts([1], file / "below")
    full = Path("/dev/full").open("wb", buffering=0)  # noqa: SIM115 - closed by what it is given to
    monkeypatch.setattr("tempfile.TemporaryFile", lambda **_: full)
    with pytest.raises(Full):
        parts([1], tmp_path)
