"""Conditional requests (RFC 9110, section 13) and the preference to wait (RFC 7240), for answers that are shown as JSON."""

import hashlib
from typing import Annotated, Any, TypeVar

from fastapi import Header, Response

from api.http.bodies import Shown

IfNoneMatch = Annotated[str | None, Header(description="The `ETag` that you have: 304 if nothing has changed.")]
NOT_MODIFIED: dict[int | str, dict[str, Any]] = {304: {"description": "Nothing has changed."}}

S = TypeVar("S", bound=Shown)


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
