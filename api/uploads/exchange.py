"""What the three kinds of uploads have in common over HTTP: reading a PUT, and answering when there is news."""

import time

from fastapi import Request
from starlette.concurrency import run_in_threadpool

from api.http import digests
from api.http.conditional import matches, tag_of
from api.http.errors import BadHeader, UnsupportedMediaType
from api.http.row_watch import RowWatch, token_of
from api.uploads.service import B, R, Uploads
from models.status import UploadStatus


async def receive(uploads: Uploads[R, B], key_id: str, identifier: str, request: Request) -> None:
    """Stream the body of a PUT into an upload.

    Raises:
        UnsupportedMediaType: the bytes are wrapped or compressed.
        BadHeader: a digest header cannot be read.
    """
    content_type = request.headers.get("content-type", "")
    if content_type.startswith("multipart/"):
        raise UnsupportedMediaType("Send the raw bytes, not a form: curl -T FILE LINK.")
    if request.headers.get("content-encoding", "identity") != "identity":
        raise UnsupportedMediaType("Send the bytes as they are, without a Content-Encoding.")
    if "content-range" in request.headers:
        raise BadHeader("A PUT sends all bytes: leave Content-Range out.")
    expected = digests.announced(request.headers.get("content-digest"), request.headers.get("repr-digest"))
    length = request.headers.get("content-length")
    await uploads.receive(key_id, identifier, request.stream(), int(length) if length else None, expected)


async def verdict(uploads: Uploads[R, B], watch: RowWatch, key_id: str, identifier: str, wait: int) -> B:
    """The upload as soon as its inspection is over, or as it is after so many seconds."""
    deadline = time.monotonic() + wait
    while True:
        record, body = await run_in_threadpool(uploads.get, key_id, identifier)
        left = deadline - time.monotonic()
        if body.status != UploadStatus.INSPECTING or left <= 0 or watch.closing:
            return body
        await watch.changed(uploads.record, identifier, token_of(record), left)


async def news(
    uploads: Uploads[R, B], watch: RowWatch, key_id: str, identifier: str, wait: int, known: str | None
) -> B:
    """The upload as soon as it differs from what the client knows, or as it is after so many seconds."""
    deadline = time.monotonic() + wait
    known = known or tag_of((await run_in_threadpool(uploads.get, key_id, identifier))[1])
    while True:
        record, body = await run_in_threadpool(uploads.get, key_id, identifier)
        left = deadline - time.monotonic()
        settled = body.status in (UploadStatus.READY, UploadStatus.REJECTED)
        if settled or not matches(known, tag_of(body)) or left <= 0 or watch.closing:
            return body
        await watch.changed(uploads.record, identifier, token_of(record), left)
