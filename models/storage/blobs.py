"""Blobs: one small interface over a local folder and S3.

Keys are `/`-separated names (`models/storage/keys.py` has them all). Writes are atomic in both.
"""

import asyncio
import re
import time
from collections.abc import AsyncIterable, AsyncIterator, Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

import obstore
from obstore.store import LocalStore, S3Store

from models.storage.chunks import BLOCK, CHUNK, PART, READ, Stored, Tally, blocks_of, chunks_of, parts_of
from models.storage.errors import Damaged, NotFound, translated
from models.storage.s3_calls import S3Calls

PARTS_AT_ONCE = 2
PARTIAL = re.compile(r"#\d+$")
"""End of the name of a file in a folder while it is written."""


@dataclass(frozen=True)
class Entry:
    """One blob of a listing; `modified` in seconds since 1970 by the store's clock."""

    key: str
    size: int
    modified: float


class Storage:
    """Blobs in a folder or a bucket. Every method may raise `Unavailable`."""

    def __init__(
        self,
        store: LocalStore | S3Store,
        folder: Path | None = None,
        s3: S3Calls | None = None,
        spool: Path | None = None,
    ):
        """`folder` holds the blobs, if they are files; else `spool` holds the parts of streams while they arrive."""
        self._store = store
        self.folder = folder
        self._spool = spool
        self._s3 = s3

    def put(self, key: str, data: bytes | Path | Iterable[bytes], create_only: bool = False) -> Stored:
        """Write a blob. An existing one is replaced, unless `create_only`.

        If `create_only`, an iterable is read into memory first; bytes and files are not copied.

        Raises:
            Exists: `create_only`, and the blob exists.
        """
        tally = Tally(key)
        if isinstance(data, Path):
            data.stat()  # a missing source file must not raise NotFound
        with translated(key):
            if not create_only:
                chunks = (tally.add(chunk) for chunk in chunks_of(data))
                obstore.put(self._store, key, chunks, chunk_size=PART, max_concurrency=PARTS_AT_ONCE)
                return tally.total()
            for chunk in chunks_of(whole := data if isinstance(data, bytes | Path) else b"".join(data)):
                tally.add(chunk)
            obstore.put(self._store, key, whole, mode="create")
        return tally.total()

    async def put_stream(self, key: str, chunks: AsyncIterable[bytes], limit: int) -> Stored:
        """Write a blob from a stream; the blob is visible only once it is complete.

        It takes a few blocks of memory, or a few parts while they are sent to a bucket. A slow stream takes one block.

        Exceptions of `chunks` (such as a lost client) are raised, and nothing is written.

        Raises:
            TooLarge: the stream is longer than `limit` bytes.
        """
        tally = Tally(key, limit)

        async def counted() -> AsyncIterator[bytes]:
            # a thread hashes each block while the next one arrives: hashing takes as long as everything else
            hashed: asyncio.Future[None] | None = None
            try:
                async for block in blocks_of(chunks):
                    tally.count(block)
                    if hashed is not None:
                        await hashed
                    hashed = asyncio.get_running_loop().run_in_executor(None, tally.hash, block)
                    yield block
            finally:
                if hashed is not None:
                    await hashed

        data, size = (counted(), BLOCK) if self._spool is None else (parts_of(counted(), self._spool), PART)
        with translated(key):
            await obstore.put_async(self._store, key, data, chunk_size=size, max_concurrency=PARTS_AT_ONCE)
        return tally.total()

    def get(self, key: str, start: int = 0, end: int | None = None) -> Iterator[bytes]:
        """The bytes from `start` to `end` (exclusive, clipped to the blob's size), in chunks.

        Raises:
            NotFound: there is no such blob; raised by the call, not by the first chunk.
        """
        size = self.size(key)
        if size is None:
            raise NotFound(key, "there is no such blob")
        return self._read(key, start, size if end is None else min(end, size))

    def _read(self, key: str, start: int, end: int) -> Iterator[bytes]:
        # one request per chunk: a slow reader does not keep a connection open until it times out
        size = READ if self.folder else CHUNK
        for offset in range(start, end, size):
            yield self._chunk(key, offset, min(offset + size, end))

    def _chunk(self, key: str, start: int, end: int) -> bytes:
        with translated(key):
            return obstore.get_range(self._store, key, start=start, end=end).to_bytes()

    def download(
        self, key: str, path: Path, sha256: str | None = None, check: Callable[[], None] | None = None
    ) -> Stored:
        """Copy a blob to a file, which appears only once it is complete. `check` is called before every chunk and may
        raise.

        Raises:
            NotFound: there is no such blob.
            Damaged: its SHA-256 is not `sha256`.
        """
        tally, partial = Tally(key), path.with_name(f".{path.name}.part")
        try:
            with partial.open("wb") as file:
                for chunk in self.get(key):
                    if check is not None:
                        check()
                    file.write(tally.add(chunk))
            stored = tally.total()
            if sha256 is not None and stored.sha256 != sha256:
                raise Damaged(key, f"its SHA-256 is {stored.sha256}, not {sha256} as recorded")
            partial.replace(path)
        finally:
            partial.unlink(missing_ok=True)
        return stored

    def size(self, key: str) -> int | None:
        """Size of a blob in bytes; None if it does not exist."""
        try:
            with translated(key):
                return obstore.head(self._store, key)["size"]
        except NotFound:
            return None

    def delete(self, key: str) -> None:
        """Remove a blob, if it exists."""
        try:
            with translated(key):
                obstore.delete(self._store, key)
        except NotFound:
            return

    def delete_prefix(self, prefix: str) -> int:
        """Remove all blobs under `prefix/`; returns how many there were.

        Raises:
            ValueError: the prefix is empty.
        """
        if not prefix.strip("/"):
            raise ValueError("the prefix must not be empty")
        keys = [entry.key for entry in self.list(prefix)]
        for key in keys:
            self.delete(key)
        return len(keys)

    def list(self, prefix: str = "") -> Iterator[Entry]:
        """All blobs under `prefix/`, in no particular order."""
        with translated(prefix):
            for page in obstore.list(self._store, prefix or None, chunk_size=1000):
                for meta in page:
                    yield Entry(meta["path"], meta["size"], meta["last_modified"].timestamp())

    def discard_partial(self, older_than_seconds: float) -> int:
        """Remove the partial blobs of writers that were killed; returns how many.

        They are not in any listing: in a folder they are temporary files, in a bucket incomplete multipart uploads.
        """
        if self.folder is None:
            return self._s3.abort_unfinished(older_than_seconds) if self._s3 else 0
        before = time.time() - older_than_seconds
        discarded = 0
        for path in self.folder.rglob("*#*"):
            try:
                if PARTIAL.search(path.name) and path.is_file() and path.stat().st_mtime < before:
                    path.unlink()
                    discarded += 1
            except FileNotFoundError:
                continue  # the writer has just finished, or another sweep has removed it
        return discarded

    def presign(self, key: str, seconds: int, file_name: str, content_type: str) -> str | None:
        """A link that anyone may GET for `seconds`; browsers save the blob as `file_name`.

        None if blobs are in a folder, or if clients cannot reach the S3 server (no public endpoint is set).
        """
        return self._s3.link(key, seconds, file_name, content_type) if self._s3 else None
