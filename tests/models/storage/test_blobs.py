"""The storage interface, with a folder and with an S3 server."""

import asyncio
import hashlib
import os
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from models.storage.blobs import Storage
from models.storage.chunks import CHUNK, PART, Stored
from models.storage.errors import Damaged, Exists, NotFound, TooLarge, Unavailable
from models.storage.opening import open_storage, storage
from tests.models.storage.buckets import WRITER, s3_settings, whole

Configure = Callable[..., Any]


@pytest.fixture(params=["folder", "s3"])
def blobs(request: pytest.FixtureRequest, configure: Configure, tmp_path: Path) -> Storage:
    if request.param == "s3":
        return open_storage(configure(**s3_settings(request.getfixturevalue("s3"))))
    return open_storage(configure(storage_url=(tmp_path / "blobs with space").as_uri()))


def stored(data: bytes) -> Stored:
    return Stored(len(data), hashlib.sha256(data).hexdigest())


LARGE = os.urandom(1 << 16) * ((2 * PART + CHUNK) >> 16) + b"end"


@pytest.mark.parametrize("data", [b"", b"x", LARGE], ids=["empty", "byte", "parts"])
@pytest.mark.parametrize("create_only", [False, True])
def test_written_bytes_are_read_back(blobs: Storage, data: bytes, create_only: bool) -> None:
    assert blobs.put("a/b c/ü.bin", data, create_only) == stored(data)
    assert blobs.size("a/b c/ü.bin") == len(data)
    assert whole(blobs, "a/b c/ü.bin") == data


def test_files_and_iterables_are_written(blobs: Storage, tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(LARGE)
    assert blobs.put("file", path) == stored(LARGE)
    assert blobs.put("pieces", (piece for piece in (b"one", b"", b"two"))) == stored(b"onetwo")
    assert blobs.put("created", (piece for piece in (b"one", b"", b"two")), create_only=True) == stored(b"onetwo")
    assert (whole(blobs, "file"), whole(blobs, "pieces")) == (LARGE, b"onetwo")


def test_a_missing_file_is_not_a_missing_blob(blobs: Storage, tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        blobs.put("key", tmp_path / "missing")


def test_a_put_replaces_unless_create_only(blobs: Storage) -> None:
    blobs.put("key", b"old")
    with pytest.raises(Exists):
        blobs.put("key", b"new", create_only=True)
    assert whole(blobs, "key") == b"old"
    blobs.put("key", b"new")
    assert whole(blobs, "key") == b"new"


def test_a_writer_that_fails_leaves_nothing(blobs: Storage) -> None:
    def pieces() -> Iterator[bytes]:
        yield bytes(PART + 1)
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        blobs.put("half", pieces())
    assert blobs.size("half") is None
    assert list(blobs.list()) == []


@settings(max_examples=20, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(start=st.integers(0, len(LARGE) + 5), end=st.none() | st.integers(0, len(LARGE) + 5))
def test_ranges_are_slices(configured_folder: Storage, start: int, end: int | None) -> None:
    assert b"".join(configured_folder.get("large", start, end)) == LARGE[start:end]


@pytest.fixture
def configured_folder(configure: Configure, tmp_path: Path) -> Storage:
    blobs = open_storage(configure(storage_url=(tmp_path / "blobs").as_uri()))
    blobs.put("large", LARGE)
    return blobs


def test_ranges(blobs: Storage) -> None:
    blobs.put("ten", b"0123456789")
    assert [whole(blobs, "ten", *part) for part in ((3,), (3, 5), (9, 99), (10, 11), (5, 5), (7, 3))] == [
        b"3456789", b"34", b"9", b"", b"", b"",
    ]  # fmt: skip


def test_a_missing_blob(blobs: Storage, tmp_path: Path) -> None:
    assert blobs.size("missing") is None
    blobs.delete("missing")
    assert list(blobs.list("missing")) == []
    assert blobs.delete_prefix("missing") == 0
    with pytest.raises(NotFound):
        blobs.get("missing")  # at the call, before the first chunk is read
    with pytest.raises(NotFound):
        blobs.download("missing", tmp_path / "file")
    assert list(tmp_path.glob("*file*")) == []


def test_prefixes_match_whole_names(blobs: Storage) -> None:
    for key in ("jobs/1/a", "jobs/1/b/c", "jobs/10/a", "jobs2/a"):
        blobs.put(key, key.encode())
    assert {(entry.key, entry.size) for entry in blobs.list("jobs/1")} == {("jobs/1/a", 8), ("jobs/1/b/c", 10)}
    assert {entry.key for entry in blobs.list("jobs/")} == {"jobs/1/a", "jobs/1/b/c", "jobs/10/a"}
    assert all(abs(entry.modified - datetime.now(UTC).timestamp()) < 3600 for entry in blobs.list())
    assert blobs.delete_prefix("jobs/1") == 2
    assert {entry.key for entry in blobs.list()} == {"jobs/10/a", "jobs2/a"}
    blobs.delete("jobs2/a")
    assert {entry.key for entry in blobs.list()} == {"jobs/10/a"}
    with pytest.raises(ValueError, match="must not be empty"):
        blobs.delete_prefix("/")


def test_no_key_leads_out_of_the_storage(blobs: Storage) -> None:
    with pytest.raises(ValueError, match=r"\.\."):
        blobs.put("a/../../b", b"x")


def test_a_failed_download_leaves_no_file(blobs: Storage, tmp_path: Path) -> None:
    blobs.put("key", LARGE)
    path = tmp_path / "copies" / "file"
    path.parent.mkdir()
    assert blobs.download("key", path, hashlib.sha256(LARGE).hexdigest()) == stored(LARGE)
    assert path.read_bytes() == LARGE
    path.unlink()
    with pytest.raises(Damaged, match="as recorded"):
        blobs.download("key", path, hashlib.sha256(b"other").hexdigest())
    assert list(path.parent.iterdir()) == []


async def _stream(pieces: list[bytes], error: Exception | None = None) -> AsyncIterator[bytes]:
    for piece in pieces:
        await asyncio.sleep(0)
        yield piece
    if error:
        raise error


def test_a_stream_is_written_and_hashed(blobs: Storage) -> None:
    pieces = [LARGE[place : place + 65_536] for place in range(0, len(LARGE), 65_536)]
    assert asyncio.run(blobs.put_stream("stream", _stream([*pieces, b""]), len(LARGE))) == stored(LARGE)
    assert whole(blobs, "stream") == LARGE
    assert asyncio.run(blobs.put_stream("empty", _stream([]), 0)) == stored(b"")
    assert blobs.size("empty") == 0


def test_a_stream_above_its_limit_leaves_nothing(blobs: Storage) -> None:
    with pytest.raises(TooLarge, match="the allowed 10 bytes"):
        asyncio.run(blobs.put_stream("stream", _stream([b"0123456789", b"!"]), 10))
    with pytest.raises(TooLarge):
        asyncio.run(blobs.put_stream("stream", _stream([bytes(PART)] * 3), 2 * PART))
    assert blobs.size("stream") is None


def test_a_stream_that_fails_leaves_nothing(blobs: Storage) -> None:
    blobs.put("stream", b"the old blob")
    with pytest.raises(ConnectionAbortedError):
        asyncio.run(blobs.put_stream("stream", _stream([bytes(PART + 1)], ConnectionAbortedError()), 10 * PART))
    assert whole(blobs, "stream") == b"the old blob"
    assert [entry.key for entry in blobs.list()] == ["stream"]


def test_a_stream_that_is_cancelled_leaves_nothing(blobs: Storage) -> None:
    async def endless() -> AsyncIterator[bytes]:
        yield bytes(PART + 1)
        await asyncio.sleep(60)

    async def cancelled() -> None:
        task = asyncio.create_task(blobs.put_stream("stream", endless(), 10 * PART))
        await asyncio.sleep(0.2)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    asyncio.run(cancelled())
    assert blobs.size("stream") is None


def test_partial_files_of_a_killed_writer_are_removed(configured_folder: Storage, tmp_path: Path) -> None:
    configured_folder.put("uploads/y#1/2", b"whole")
    root = Path(__file__).parents[3]
    writer = subprocess.Popen([sys.executable, "-c", WRITER], cwd=root)
    give_up = time.monotonic() + 30
    while not (left := list(tmp_path.rglob("1#*"))) and time.monotonic() < give_up:
        time.sleep(0.05)
    writer.kill()
    writer.wait()
    assert len(left) == 1 and [entry.key for entry in configured_folder.list("uploads")] == ["uploads/y#1/2"]
    assert configured_folder.discard_partial(3600) == 0 and left[0].exists()
    assert configured_folder.discard_partial(-60) == 1 and not left[0].exists()
    assert whole(configured_folder, "uploads/y#1/2") == b"whole"


def test_a_folder_has_no_links(configured_folder: Storage) -> None:
    assert configured_folder.presign("large", 60, "large.bin", "text/plain") is None


def test_a_stopped_server_is_unavailable(configure: Configure) -> None:
    unreachable = {"storage_endpoint": "http://127.0.0.1:9", "storage_access_key": "a", "storage_secret_key": "b"}
    blobs = open_storage(configure(storage_url="s3://bucket", **unreachable))
    with pytest.raises(Unavailable, match="key"):
        blobs.size("key")


def test_the_process_has_one_storage(configure: Configure, tmp_path: Path) -> None:
    assert storage() is storage()
    storage().put("key", b"x")
    assert (tmp_path / "data" / "blobs" / "key").read_bytes() == b"x"
    for url in ("gs://bucket", "file://", "s3:///prefix", "nothing"):
        with pytest.raises(ValueError, match="must be file"):
            open_storage(configure(storage_url=url))
