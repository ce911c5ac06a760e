"""Conditional requests (RFC 9110, section 13) and the `wait` preference (RFC 7240) for JSON responses."""

import hashlib
from typing import Annotated, Any, TypeVar

from fastapi import Header, Response

from api.http.bodies import ResponseBody

IfNoneMatch = Annotated[str | None, Header(description="`ETag` of an earlier response. 304 if nothing has changed.")]
NOT_MODIFIED: dict[int | str, dict[str, Any]] = {304: {"description": "Not modified."}}

B = TypeVar("B", bound=ResponseBody)


def tag_of(body: ResponseBody) -> str:
    """The entity tag of a body: a hash of its JSON."""
    return f'"{hashlib.sha256(body.model_dump_json().encode()).hexdigest()[:32]}"'


def matches(header: str | None, tag: str) -> bool:
    """Whether `If-None-Match` contains this tag (weak comparison, RFC 9110 section 13.1.2)."""
    if header is None:
        return False
    known = {part.strip().removeprefix("W/") for part in header.split(",")}
    return "*" in known or tag in known


def conditional(response: Response, body: B, tag: str, known: str | None) -> B | Response:
    """The body with its `ETag`, or a 304 response if the client has it already."""
    response.headers["ETag"] = tag
    response.headers["Cache-Control"] = "private, no-cache"
    if matches(known, tag):
        return Response(status_code=304, headers=dict(response.headers))
    return body


def confirm_wait(response: Response, wait: int) -> None:
    """Set `Preference-Applied` if the `wait` preference was honoured (RFC 7240)."""
    if wait:
        response.headers["Preference-Applied"] = f"wait={wait}"
