"""Receiving the bytes of a PUT, and long polling, for all kinds of uploads."""

import time

from fastapi import Request
from starlette.concurrency import run_in_threadpool

from api.http import digests
from api.http.at_once import AtOnce
from api.http.conditional import matches, tag_of
from api.http.errors import TooMany, UnsupportedMediaType
from api.http.row_watch import RowWatch, token_of
from api.uploads import ranges
from api.uploads.ranged import RangedUpload
from api.uploads.service import B, R, Uploads
from models.settings import settings
from models.status import UploadStatus

RETRY_SECONDS = "5"
_sending = AtOnce()
"""Uploads whose bytes are being received, by key."""


async def receive(uploads: Uploads[R, B], key_id: str, identifier: str, request: Request) -> None:
    """Stream the body of a PUT into an upload.

    Raises:
        UnsupportedMediaType: the body is a multipart form or has a content encoding.
        BadHeader: a digest header or Content-Range is malformed, or there is a Content-MD5.
        TooMany: the key sends as many uploads as it may at the same time.
    """
    content_type = request.headers.get("content-type", "").lower()
    if content_type.startswith("multipart/"):
        raise UnsupportedMediaType("The body is a multipart form. Send the raw bytes: curl -T FILE URL.")
    if request.headers.get("content-encoding", "identity").lower() != "identity":
        raise UnsupportedMediaType("The body has a Content-Encoding. Send the bytes without one.")
    of_body, of_whole = request.headers.get("content-digest"), request.headers.get("repr-digest")
    of_whole = of_whole or digests.modern(request.headers.get("digest"), request.headers.get("content-md5"))
    length = int(request.headers["content-length"]) if request.headers.get("content-length") else None
    given = request.headers.get("content-range")
    part = None if given is None else ranges.parse(given, length)
    most = settings().uploads_at_once
    with _sending.one_more(key_id, most) as free:
        if not free:
            detail = f"This key sends {most} uploads at the same time, the most allowed. Send this one when another has ended."
            raise TooMany(detail, headers={"Retry-After": RETRY_SECONDS})
        if part is not None:
            expected = digests.announced(of_body, None), digests.announced(None, of_whole)
            await RangedUpload(uploads, key_id, identifier).receive(part, request.stream(), *expected)
        else:
            await uploads.receive(key_id, identifier, request.stream(), length, digests.announced(of_body, of_whole))


async def wait_for_inspection(uploads: Uploads[R, B], watch: RowWatch, key_id: str, identifier: str, wait: int) -> B:
    """The upload as soon as its inspection has ended, at the latest after `wait` seconds."""
    deadline = time.monotonic() + wait
    while True:
        record, body = await run_in_threadpool(uploads.get, key_id, identifier)
        left = deadline - time.monotonic()
        if body.status != UploadStatus.INSPECTING or left <= 0 or watch.closing:
            return body
        await watch.changed(uploads.record, identifier, token_of(record), left)


async def wait_for_change(
    uploads: Uploads[R, B], watch: RowWatch, key_id: str, identifier: str, wait: int, known: str | None
) -> B:
    """The upload as soon as its tag differs from `known` or it is ready or rejected, at the latest after `wait` seconds."""
    deadline = time.monotonic() + wait
    known = known or tag_of((await run_in_threadpool(uploads.get, key_id, identifier))[1])
    while True:
        record, body = await run_in_threadpool(uploads.get, key_id, identifier)
        left = deadline - time.monotonic()
        settled = body.status in (UploadStatus.READY, UploadStatus.REJECTED)
        if settled or not matches(known, tag_of(body)) or left <= 0 or watch.closing:
            return body
        await watch.changed(uploads.record, identifier, token_of(record), left)
