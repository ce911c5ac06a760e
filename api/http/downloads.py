"""Downloads: entity tags, conditional requests and ranges (RFC 9110), and redirects to the storage if it is public."""

import asyncio
import hashlib
import re
import traceback
from collections.abc import AsyncIterator, Iterator, Sequence
from dataclasses import dataclass
from itertools import chain
from urllib.parse import quote

import structlog
from fastapi import Request
from fastapi.responses import RedirectResponse, Response, StreamingResponse
from starlette.types import Receive, Scope, Send
from zipstream import ZipStream

from api.http.at_once import AtOnce
from api.http.conditional import matches
from api.http.digests import header_of
from api.http.errors import Gone, RangeNotSatisfiable, TooMany
from models.settings import settings
from models.storage.chunks import Tally
from models.storage.errors import Damaged, NotFound, StorageError
from models.storage.opening import storage

LINK_SECONDS = 900
SMALL_BYTES = 2**20
"""Files up to this size are read and checked as a whole before the response begins."""
RETRY_SECONDS = "5"
_sending = AtOnce()
"""Downloads that are being sent, by key; without small files."""
log = structlog.get_logger("api")


@dataclass(frozen=True)
class Blob:
    """Bytes in storage and how to serve them."""

    name: str
    key: str
    content_type: str
    size: int
    sha256: str | None
    inline: bool = False

    @property
    def tag(self) -> str:
        """The entity tag: the SHA-256, or a hash of the storage key, which is written once, if there is no SHA-256."""
        return f'"{self.sha256 or hashlib.sha256(self.key.encode()).hexdigest()[:32]}"'


def serve(request: Request, blob: Blob) -> Response:
    """The response to a GET or HEAD of a blob.

    Raises:
        RangeNotSatisfiable: the range starts after the end.
        Gone: the bytes are missing from the storage, or damaged.
    """
    headers = {
        "ETag": blob.tag,
        "Accept-Ranges": "bytes",
        "Cache-Control": "private, no-cache",
        "Content-Disposition": disposition(blob.name, blob.inline),
    }
    if blob.sha256 is not None:
        headers["Repr-Digest"] = header_of(blob.sha256)
    if matches(request.headers.get("if-none-match"), blob.tag):
        return Response(status_code=304, headers=headers)
    if request.method == "HEAD":
        # Range does not apply to HEAD (RFC 9110 section 14.2), and a presigned URL is valid for GET only
        return Response(headers=headers | {"Content-Length": str(blob.size)}, media_type=blob.content_type)
    link = storage().presign(blob.key, LINK_SECONDS, blob.name.rpartition("/")[2], blob.content_type)
    if link is not None:
        return RedirectResponse(link, 307, {"Cache-Control": "no-store"})
    return _stream(blob, _range(request, blob), headers)


def _stream(blob: Blob, span: tuple[int, int] | None, headers: dict[str, str]) -> Response:
    start, end = span or (0, blob.size)
    chunks = _checked(blob, start, end)
    try:
        first = b"".join(chunks) if end - start <= SMALL_BYTES else next(chunks, b"")
    except (NotFound, Damaged) as error:
        raise lost(blob, error) from error
    headers["Content-Length"] = str(end - start)
    if span is not None:
        headers["Content-Range"] = f"bytes {start}-{end - 1}/{blob.size}"
    status = 206 if span else 200
    if end - start <= SMALL_BYTES:
        return Response(first, status, headers, blob.content_type)
    return Streamed(_read_ahead(chain((first,), chunks)), status, headers, blob.content_type)


class Streamed(StreamingResponse):
    """A streaming response that gives up its chunks when it ends, also if the client has gone away. One key has a limited
    number of them at the same time, since each takes a few chunks of memory while a slow client reads it.

    Otherwise the traceback of the exception that ends it keeps the frames that hold chunks, until the garbage collector finds
    the cycle. The chunks come from an asynchronous generator.
    """

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send the response.

        Raises:
            TooMany: the key has as many downloads as it may have at the same time; nothing has been sent yet.
        """
        most = settings().downloads_at_once
        with _sending.one_more(scope.get("state", {}).get("key_id", ""), most) as free:
            if not free:
                await self.body_iterator.aclose()  # type: ignore[attr-defined]
                detail = f"This key has {most} downloads at the same time, the most allowed. Start this one when another has ended."
                raise TooMany(detail, headers={"Retry-After": RETRY_SECONDS})
            await super().__call__(scope, receive, send)

    async def stream_response(self, send: Send) -> None:
        try:
            await super().stream_response(send)
        except BaseException as error:
            traceback.clear_frames(error.__traceback__)
            raise
        finally:
            await self.body_iterator.aclose()  # type: ignore[attr-defined]


def read_small(blob: Blob) -> bytes:
    """All bytes of a small blob, checked.

    Raises:
        Gone: the bytes are missing from the storage, or damaged.
    """
    try:
        return b"".join(_checked(blob, 0, blob.size))
    except (NotFound, Damaged) as error:
        raise lost(blob, error) from error


def read_end(blob: Blob, most: int) -> bytes:
    """The last bytes of a blob, at most `most`.

    Raises:
        Gone: the bytes are missing from the storage, or were replaced by fewer meanwhile.
    """
    try:
        return b"".join(_checked(blob, max(0, blob.size - most), blob.size))
    except (NotFound, Damaged) as error:
        raise lost(blob, error) from error


def _checked(blob: Blob, start: int, end: int) -> Iterator[bytes]:
    """Bytes of a blob. The last chunk is given only if all have arrived and, of a whole blob, if their SHA-256 is right.

    Raises:
        NotFound: there is no such blob.
        Damaged: the bytes are not those that were stored.
    """
    tally, held = Tally(blob.key), b""
    for chunk in storage().get(blob.key, start, end):
        if held:
            yield held
        held = tally.add(chunk)
    found = tally.total()
    if found.size != end - start:
        raise Damaged(blob.key, f"{found.size} of {end - start} bytes are there")
    if end - start == blob.size and blob.sha256 not in (None, found.sha256):
        raise Damaged(blob.key, f"its SHA-256 is {found.sha256}, not {blob.sha256} as recorded")
    yield held


def lost(blob: Blob, error: StorageError) -> Gone:
    """The error for a blob that is missing or damaged."""
    log.error("blob_lost", key=blob.key, error=str(error))
    what = "missing from the storage" if isinstance(error, NotFound) else "damaged in the storage"
    return Gone(f"The bytes of {blob.name} are {what}. Retry the job to make them again.")


async def _read_ahead(chunks: Iterator[bytes]) -> AsyncIterator[bytes]:
    """The same chunks; while one is sent, a thread reads the next."""
    upcoming = asyncio.ensure_future(asyncio.to_thread(next, chunks, None))
    try:
        while (chunk := await upcoming) is not None:
            upcoming = asyncio.ensure_future(asyncio.to_thread(next, chunks, None))
            yield chunk
    finally:
        # not cancelled: the thread reads on anyway, and a cancelled task would keep what it waits for
        upcoming.add_done_callback(lambda task: task.cancelled() or task.exception())


def _range(request: Request, blob: Blob) -> tuple[int, int] | None:
    """Start and end (exclusive) of the requested range.

    None means the whole blob: without a range, with several ranges, another unit or an invalid range, and if `If-Range`
    does not match (RFC 9110 sections 13.1.5 and 14.2).
    """
    found = re.fullmatch(r"bytes\s*=\s*(\d{0,32})\s*-\s*(\d{0,32})\s*", request.headers.get("range", ""))
    condition = request.headers.get("if-range")
    if found is None or found.groups() == ("", "") or (condition is not None and condition.strip() != blob.tag):
        return None
    first, last = found.groups()
    if first and last and int(first) > int(last):
        return None
    start = int(first) if first else max(0, blob.size - int(last))
    end = min(blob.size, int(last) + 1) if first and last else blob.size
    if start >= blob.size or (not first and int(last) == 0):
        headers = {"Content-Range": f"bytes */{blob.size}"}
        detail = f"The range starts after the end: {blob.name} has {blob.size} bytes."
        raise RangeNotSatisfiable(detail, headers=headers)
    return start, end


def disposition(name: str, inline: bool = False) -> str:
    """A Content-Disposition header with an ASCII fallback for the file name (RFC 6266)."""
    name = name.rpartition("/")[2]
    plain = re.sub(r"[^ !#-\[\]-~]", "_", name)
    extended = "" if plain == name else f"; filename*=UTF-8''{quote(name, safe='')}"
    return f'{"inline" if inline else "attachment"}; filename="{plain}"{extended}'


def zipped(files: Sequence[Blob]) -> ZipStream:
    """A zip of blobs: iterate over it for its bytes, in constant memory; its `len` is their number.

    Nothing is compressed, since weights don't shrink. Blobs are read when their turn comes, and checked: the zip ends with an
    exception before the last bytes of a damaged blob.

    Raises:
        Gone: a blob is missing from the storage.
    """
    archive = ZipStream(sized=True)
    for blob in files:
        if storage().size(blob.key) is None:
            raise lost(blob, NotFound(blob.key, "there is no such blob"))
        archive.add(_checked(blob, 0, blob.size), blob.name, size=blob.size)
    return archive
