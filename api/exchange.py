"""What the three kinds of uploads have in common over HTTP: reading a PUT, and answering when there is news."""

import hashlib
import time
from typing import TypeVar

from fastapi import Request, Response
from starlette.concurrency import run_in_threadpool

from api import digests
from api.bodies import Shown
from api.errors import BadHeader, UnsupportedMediaType
from api.uploads import B, R, Uploads
from api.watch import Watch, token_of
from models.status import UploadStatus

S = TypeVar("S", bound=Shown)


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


async def verdict(uploads: Uploads[R, B], watch: Watch, key_id: str, identifier: str, wait: int) -> B:
    """The upload as soon as its inspection is over, or as it is after so many seconds."""
    deadline = time.monotonic() + wait
    while True:
        record, body = await run_in_threadpool(uploads.get, key_id, identifier)
        left = deadline - time.monotonic()
        if body.status != UploadStatus.INSPECTING or left <= 0 or watch.closing:
            return body
        await watch.changed(uploads.record, identifier, token_of(record), left)


async def news(uploads: Uploads[R, B], watch: Watch, key_id: str, identifier: str, wait: int, known: str | None) -> B:
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


def tag_of(body: Shown) -> str:
    """An entity tag of what is shown."""
    return f'"{hashlib.sha256(body.model_dump_json().encode()).hexdigest()[:32]}"'


def matches(header: str | None, tag: str) -> bool:
    """Whether `If-None-Match` names this tag (weak comparison, RFC 9110 section 13.1.2)."""
    if header is None:
        return False
    known = {part.strip().removeprefix("W/") for part in header.split(",")}
    return "*" in known or tag in known


def conditional(response: Response, body: S, tag: str, known: str | None) -> S | Response:
    """The body with its tag, or 304 where the client has it already."""
    response.headers["ETag"] = tag
    response.headers["Cache-Control"] = "private, no-cache"
    if matches(known, tag):
        return Response(status_code=304, headers=dict(response.headers))
    return body


def applied(response: Response, wait: int) -> None:
    """Say that the preference to wait was honoured (RFC 7240)."""
    if wait:
        response.headers["Preference-Applied"] = f"wait={wait}"
