"""FastAPI dependencies that several routes use."""

import re
from typing import Annotated

from fastapi import Depends, Header, Path, Query, Request, Security
from fastapi.security import HTTPBearer, SecurityScopes
from pydantic import AwareDatetime

from api.access import auth
from api.access.auth import Caller
from api.http.errors import Forbidden, Invalid, TooMany
from api.http.paging import MAX_LIMIT, Window, parse_labels
from api.http.row_watch import RowWatch

MAX_WAIT_SECONDS = 60
EXAMPLE_TIME = "2026-11-21T09:00:00Z"

_bearer = HTTPBearer(
    auto_error=False,
    description="An API key, `dsk_…`. The first start writes one to the file `key` in the data folder.",
)


async def current_caller(request: Request, needed: SecurityScopes, _: Annotated[object, Security(_bearer)]) -> Caller:
    """The caller of the request; its key must have the scopes of the route.

    Raises:
        Unauthorised: the request has no valid key.
        TooMany: the key has sent too many requests.
        Forbidden: the key lacks a scope.
    """
    address = request.client.host if request.client else ""
    caller = await auth.caller_of(request.headers.get("authorization"), address)
    request.state.key_id = caller.key_id
    usage = auth.counted(caller, request.scope["state"])
    if usage is not None and usage.exceeded:
        detail = (
            f"This key may send {usage.quota} requests a minute, and has sent more. "
            f"Try again in {usage.reset_seconds} seconds."
        )
        raise TooMany(detail, headers={"Retry-After": str(usage.reset_seconds)})
    if missing := [scope for scope in needed.scopes if scope not in caller.scopes]:
        raise _forbidden(missing, caller)
    return caller


def _forbidden(missing: list[str], caller: Caller) -> Forbidden:
    granted = ", ".join(sorted(caller.scopes)) or "none"
    detail = (
        f"This operation needs a key with the scope {' and '.join(missing)}; the scopes of this key are: {granted}."
    )
    challenge = f'Bearer realm="distillery", error="insufficient_scope", scope="{" ".join(missing)}"'
    return Forbidden(detail, headers={"WWW-Authenticate": challenge})


async def current_key(caller: Annotated[Caller, Depends(current_caller)]) -> str:
    """The id of the request's key."""
    return caller.key_id


async def requested_wait(
    prefer: Annotated[
        str | None,
        Header(
            description="`wait=N` delays the response until something has changed, for at most N seconds"
            f" (RFC 7240; at most {MAX_WAIT_SECONDS}).",
            examples=["wait=1"],
        ),
    ] = None,
) -> int | None:
    """Seconds that the client wants to wait; None without a `wait` preference. Unknown preferences are ignored (RFC 7240)."""
    for preference in (prefer or "").split(","):
        found = re.fullmatch(r'\s*wait\s*=\s*"?(\d{1,6})"?\s*(?:;.*)?', preference, re.IGNORECASE)
        if found:
            return min(int(found[1]), MAX_WAIT_SECONDS)
    return None


async def wait_or_zero(requested: Annotated[int | None, Depends(requested_wait)]) -> int:
    """Seconds that the client wants to wait; 0 without a `wait` preference."""
    return requested or 0


Limit = Annotated[
    int, Query(ge=1, description=f"Largest number of entries; values above {MAX_LIMIT} mean {MAX_LIMIT}.")
]


async def window(
    limit: Limit = 50,
    cursor: Annotated[str | None, Query(max_length=200, description="`next_cursor` of the previous page.")] = None,
    label: Annotated[
        list[str] | None,
        Query(description="Only entries with this label, `name:value`. May be repeated.", max_length=16),
    ] = None,
    created_after: Annotated[
        AwareDatetime | None, Query(description="Only entries created at or after this time.", examples=[EXAMPLE_TIME])
    ] = None,
    created_before: Annotated[
        AwareDatetime | None, Query(description="Only entries created before this time.", examples=[EXAMPLE_TIME])
    ] = None,
) -> Window:
    """The requested page of a list."""
    times = [time.timestamp() if time else None for time in (created_after, created_before)]
    return Window(min(limit, MAX_LIMIT), cursor, parse_labels(label or []), *times)


async def plain_window(
    limit: Limit = 50,
    cursor: Annotated[str | None, Query(max_length=200, description="`next_cursor` of the previous page.")] = None,
) -> Window:
    """The requested page of a list without labels."""
    return Window(min(limit, MAX_LIMIT), cursor)


async def idempotency_key(
    idempotency_key: Annotated[
        str | None,
        Header(
            description="A unique text chosen by the client. Repeated requests with the same text and body create one job.",
            max_length=255,
            examples=["8e03978e-40d5-43e8-bc93-6894a57f9324"],
        ),
    ] = None,
) -> str | None:
    """The Idempotency-Key header."""
    if idempotency_key is not None and not idempotency_key.strip():
        raise Invalid([("Idempotency-Key", "must not be empty")])
    return idempotency_key


async def current_watch(request: Request) -> RowWatch:
    """The row watch of this process."""
    watch: RowWatch = request.app.state.watch
    return watch


Identifier = Annotated[str, Path(max_length=64, description="Id from the response that created it.")]
CurrentKey = Annotated[str, Depends(current_key)]
"""Any key. Routes that read or change something use a key with a scope instead."""
JobsRead = Annotated[str, Security(current_key, scopes=["jobs:read"])]
JobsWrite = Annotated[str, Security(current_key, scopes=["jobs:write"])]
UploadsRead = Annotated[str, Security(current_key, scopes=["uploads:read"])]
UploadsWrite = Annotated[str, Security(current_key, scopes=["uploads:write"])]
Admin = Annotated[Caller, Security(current_caller, scopes=["admin"])]
PlainWindow = Annotated[Window, Depends(plain_window)]
CurrentWindow = Annotated[Window, Depends(window)]
CurrentWatch = Annotated[RowWatch, Depends(current_watch)]
IdempotencyKey = Annotated[str | None, Depends(idempotency_key)]
Wait = Annotated[int, Depends(wait_or_zero)]
RequestedWait = Annotated[int | None, Depends(requested_wait)]
