"""Blobs: one small interface over a local folder and S3.

Keys are `/`-separated names (docs/architecture.md lists them). A write is seen whole or not at all, on both.

    StorageError            something about a blob went wrong
    ├── NotFound            there is no blob of this key
    ├── Exists              a create-only write found one
    ├── TooLarge            a stream went past its limit
    ├── Damaged             the bytes are not those whose SHA-256 was recorded
    └── Unavailable         the store does not answer, or refuses us
        └── Full            there is no room left
"""

import asyncio
import hashlib
import re
import time
from collections.abc import AsyncIterable, AsyncIterator, Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import urlsplit
from urllib.request import url2pathname
from xml.etree import ElementTree

import obstore
from obstore.exceptions import AlreadyExistsError, BaseError
from obstore.store import LocalStore, S3Store

from models.settings import Settings, settings
from models.storage.presign import Signer
from models.storage.unfinished_multiparts import Multiparts

if TYPE_CHECKING:
    from obstore.store import S3Config

CHUNK = 4 * 2**20
"""Bytes of one read."""
PART = 8 * 2**20
"""Bytes of one part of a multipart write; S3 allows 10,000 of them."""
PARTS_AT_ONCE = 2
FULL = ("os error 28", "No space left on device", "507 Insufficient Storage")
"""What a disk or an S3 server says when it has no room."""
PARTIAL = re.compile(r"#\d+$")
"""How a folder's file ends while it is written."""


class StorageError(Exception):
    """Something about a blob went wrong."""

    def __init__(self, key: str, message: str):
        super().__init__(f"{key}: {message}")
        self.key, self.message = key, message


class NotFound(StorageError):
    """There is no blob of this key."""


class Exists(StorageError):
    """A create-only write found a blob of this key."""


class TooLarge(StorageError):
    """A stream went past its limit."""

    def __init__(self, key: str, limit: int):
        super().__init__(key, f"larger than the {limit} bytes that are allowed")
        self.limit = limit


class Damaged(StorageError):
    """The bytes are not those whose SHA-256 was recorded."""


class Unavailable(StorageError):
    """The store does not answer, or refuses us."""


class Full(Unavailable):
    """There is no room left in the store."""


@dataclass(frozen=True)
class Stored:
    """What was written: bytes and their SHA-256 in hex."""

    size: int
    sha256: str


@dataclass(frozen=True)
class Entry:
    """One blob of a listing; `modified` in seconds since 1970 by the store's clock."""

    key: str
    size: int
    modified: float


class Tally:
    """Counts and hashes what passes, up to a limit."""

    def __init__(self, key: str, limit: int | None = None):
        self.key, self.limit = key, limit
        self.size, self._hash = 0, hashlib.sha256()

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
        """The second half of `add`, in the chunks' order."""
        self._hash.update(chunk)

    def total(self) -> Stored:
        return Stored(self.size, self._hash.hexdigest())


class Storage:
    """Blobs in a folder or in a bucket. Every method may raise `Unavailable`."""

    def __init__(
        self,
        store: LocalStore | S3Store,
        signer: Signer | None = None,
        folder: Path | None = None,
        multiparts: Multiparts | None = None,
    ):
        self._store, self._signer, self._folder, self._multiparts = store, signer, folder, multiparts

    def put(self, key: str, data: bytes | Path | Iterable[bytes], create_only: bool = False) -> Stored:
        """Write a blob, over an older one unless `create_only`.

        A create-only write of an iterable is read into memory first; one of bytes or of a file is not copied.

        Raises:
            Exists: `create_only`, and there is one.
        """
        tally = Tally(key)
        if isinstance(data, Path):
            data.stat()  # a missing file of ours is not a missing blob
        with _translated(key):
            if not create_only:
                chunks = (tally.add(chunk) for chunk in _chunks(data))
                obstore.put(self._store, key, chunks, chunk_size=PART, max_concurrency=PARTS_AT_ONCE)
                return tally.total()
            for chunk in _chunks(whole := data if isinstance(data, bytes | Path) else b"".join(data)):
                tally.add(chunk)
            obstore.put(self._store, key, whole, mode="create")
        return tally.total()

    async def put_stream(self, key: str, chunks: AsyncIterable[bytes], limit: int) -> Stored:
        """Write a blob from a stream in constant memory; nothing is visible before its end.

        What `chunks` raises (a sender that vanishes) is raised, and nothing is written.

        Raises:
            TooLarge: the stream is longer than `limit` bytes.
        """
        tally = Tally(key, limit)

        async def counted() -> AsyncIterator[bytes]:
            # one block is hashed in a thread while the next one arrives: hashing costs as long as all the rest
            hashed: asyncio.Future[None] | None = None
            try:
                async for block in _blocks(chunks):
                    tally.count(block)
                    if hashed is not None:
                        await hashed
                    hashed = asyncio.get_running_loop().run_in_executor(None, tally.hash, block)
                    yield block
            finally:
                if hashed is not None:
                    await hashed

        with _translated(key):
            await obstore.put_async(self._store, key, counted(), chunk_size=PART, max_concurrency=PARTS_AT_ONCE)
        return tally.total()

    def get(self, key: str, start: int = 0, end: int | None = None) -> Iterator[bytes]:
        """The bytes from `start` up to, not including, `end` (clipped to the blob), in chunks.

        Raises:
            NotFound: at the call, not at the first chunk.
        """
        size = self.size(key)
        if size is None:
            raise NotFound(key, "there is no such blob")
        return self._read(key, start, size if end is None else min(end, size))

    def _read(self, key: str, start: int, end: int) -> Iterator[bytes]:
        # a request a chunk: a slow reader holds no connection open until it times out
        for offset in range(start, end, CHUNK):
            with _translated(key):
                chunk = obstore.get_range(self._store, key, start=offset, end=min(offset + CHUNK, end))
            yield chunk.to_bytes()

    def download(
        self, key: str, path: Path, sha256: str | None = None, attend: Callable[[], None] | None = None
    ) -> Stored:
        """Copy a blob to a file, which appears only when it is whole; `attend` is called before every chunk, and may raise.

        Raises:
            NotFound: there is no such blob.
            Damaged: its SHA-256 is not `sha256`.
        """
        tally, partial = Tally(key), path.with_name(f".{path.name}.part")
        try:
            with partial.open("wb") as file:
                for chunk in self.get(key):
                    if attend is not None:
                        attend()
                    file.write(tally.add(chunk))
            stored = tally.total()
            if sha256 is not None and stored.sha256 != sha256:
                raise Damaged(key, f"its SHA-256 is {stored.sha256}, not {sha256} as recorded")
            partial.replace(path)
        finally:
            partial.unlink(missing_ok=True)
        return stored

    def size(self, key: str) -> int | None:
        """Bytes of a blob, None if there is none."""
        try:
            with _translated(key):
                return obstore.head(self._store, key)["size"]
        except NotFound:
            return None

    def delete(self, key: str) -> None:
        """Remove a blob; that there is none is fine."""
        try:
            with _translated(key):
                obstore.delete(self._store, key)
        except NotFound:
            return

    def delete_prefix(self, prefix: str) -> int:
        """Remove all blobs under `prefix/`; says how many there were."""
        if not prefix.strip("/"):
            raise ValueError("deleting a prefix needs a prefix")
        keys = [entry.key for entry in self.list(prefix)]
        for key in keys:
            self.delete(key)
        return len(keys)

    def list(self, prefix: str = "") -> Iterator[Entry]:
        """All blobs under `prefix/`, in no particular order."""
        with _translated(prefix):
            for page in obstore.list(self._store, prefix or None, chunk_size=1000):
                for meta in page:
                    yield Entry(meta["path"], meta["size"], meta["last_modified"].timestamp())

    def discard_partial(self, older_than_seconds: float) -> int:
        """Remove what writers that were killed have left; says how many.

        No listing shows these: in a folder a blob is written beside its name, in a bucket it is a multipart upload that
        nobody completes.
        """
        if self._folder is None:
            return self._discard_multiparts(older_than_seconds)
        discarded, before = 0, time.time() - older_than_seconds
        for path in self._folder.rglob("*#*"):
            try:
                if PARTIAL.search(path.name) and path.is_file() and path.stat().st_mtime < before:
                    path.unlink()
                    discarded += 1
            except FileNotFoundError:
                continue  # its writer has just finished, or another sweep was quicker
        return discarded

    def _discard_multiparts(self, older_than_seconds: float) -> int:
        try:
            return self._multiparts.discard(older_than_seconds) if self._multiparts else 0
        except (OSError, ElementTree.ParseError) as error:
            raise Unavailable("", f"unfinished uploads cannot be listed or aborted: {error}") from error

    def presign(self, key: str, seconds: int, file_name: str, content_type: str) -> str | None:
        """A link that anyone may GET for so long, saved under `file_name`.

        None where blobs lie in a folder, or where clients cannot reach the S3 server (no public endpoint is set).
        """
        return self._signer.link(key, seconds, file_name, content_type) if self._signer else None


async def _blocks(chunks: AsyncIterable[bytes]) -> AsyncIterator[bytes]:
    """The same bytes in blocks of `CHUNK` or a little more; the last may be smaller."""
    gathered: list[bytes] = []
    size = 0
    async for chunk in chunks:
        gathered.append(chunk)
        size += len(chunk)
        if size >= CHUNK:
            yield b"".join(gathered)
            gathered, size = [], 0
    if size:
        yield b"".join(gathered)


def _chunks(data: bytes | Path | Iterable[bytes]) -> Iterator[bytes]:
    if isinstance(data, bytes):
        yield from (data[offset : offset + PART] for offset in range(0, len(data), PART))
    elif isinstance(data, Path):
        with data.open("rb") as file:
            while chunk := file.read(CHUNK):
                yield chunk
    else:
        yield from (chunk for chunk in data if chunk)


@contextmanager
def _translated(key: str) -> Iterator[None]:
    try:
        yield
    except FileNotFoundError as error:
        raise NotFound(key, "there is no such blob") from error
    except AlreadyExistsError as error:
        raise Exists(key, "there is one already") from error
    except BaseError as error:  # and no OSError: those are the sender's
        message = str(error).partition("\n")[0]
        full = any(words in str(error) for words in FULL)
        raise (Full if full else Unavailable)(key, message) from error


def open_storage(settings: Settings) -> Storage:
    """The storage that settings name.

    Raises:
        ValueError: the URL is neither `file:///folder` nor `s3://bucket/prefix`.
        Unavailable: the folder cannot be used.
    """
    url = urlsplit(settings.storage)
    if url.scheme == "file" and url.path:
        folder = Path(url2pathname(url.path))
        try:
            return Storage(LocalStore(folder, automatic_cleanup=True, mkdir=True), folder=folder)
        except OSError as error:
            raise Unavailable(str(folder), f"the folder cannot be used: {error}") from error
    if url.scheme == "s3" and url.netloc:
        return _open_bucket(settings, url.netloc, url.path.strip("/"))
    raise ValueError(f"storage must be file:///folder or s3://bucket/prefix, not {settings.storage}")


def _open_bucket(settings: Settings, bucket: str, prefix: str) -> Storage:
    endpoint, public = settings.storage_endpoint, settings.storage_public_endpoint
    access, secret, region = settings.storage_access_key, settings.storage_secret_key, settings.storage_region
    config: S3Config = {"region": region, "virtual_hosted_style_request": False}
    if endpoint:
        config["endpoint"] = endpoint
    if access and secret:
        config |= {"access_key_id": access, "secret_access_key": secret}
    store = S3Store(
        bucket,
        prefix=prefix or None,
        config=config,
        client_options={"allow_http": endpoint is not None, "connect_timeout": timedelta(seconds=5)},
        retry_config={"max_retries": 4, "retry_timeout": timedelta(seconds=20)},
    )
    signer = Signer(public, bucket, prefix, access, secret, region) if public and access and secret else None
    address = endpoint or f"https://s3.{region}.amazonaws.com"
    whole = Signer(address, bucket, "", access, secret, region) if access and secret else None
    return Storage(store, signer, multiparts=Multiparts(whole, prefix) if whole else None)


@lru_cache(maxsize=1)
def storage() -> Storage:
    """The storage of this process."""
    return open_storage(settings())
