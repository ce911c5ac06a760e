"""What routes ask for in their signatures."""

import re
from typing import Annotated

from fastapi import Depends, Header, Path, Query, Request, Security
from fastapi.security import HTTPBearer, SecurityScopes
from pydantic import AwareDatetime

from api.access import auth
from api.access.auth import Caller, requests
from api.http.errors import Forbidden, Invalid, TooMany
from api.http.paging import MOST, Window, parse_labels
from api.http.row_watch import RowWatch

LONGEST_WAIT_SECONDS = 60
A_TIME = "2026-11-21T09:00:00Z"

_bearer = HTTPBearer(
    auto_error=False, description="A key of the service, `dsk_…`. The first start leaves one in a file."
)


def current_caller(request: Request, needed: SecurityScopes, _: Annotated[object, Security(_bearer)]) -> Caller:
    """Whose key the request carries; it must have the scopes that the route needs.

    Raises:
        Unauthorised: it carries none that is known.
        TooMany: the key has asked too often.
        Forbidden: it lacks a scope.
    """
    address = request.client.host if request.client else ""
    caller = auth.authenticate(request.headers.get("authorization"), address)
    request.state.key_id = caller.key_id
    if caller.limits is not None:
        standing = requests.count(caller.key_id, caller.limits.requests_a_minute)
        request.state.rate = standing.headers()
        if standing.exceeded:
            detail = f"This key may ask {standing.quota} times a minute: go on in {standing.reset_seconds} seconds."
            raise TooMany(detail, headers={"Retry-After": str(standing.reset_seconds)})
    if missing := [scope for scope in needed.scopes if scope not in caller.scopes]:
        raise _forbidden(missing, caller)
    return caller


def _forbidden(missing: list[str], caller: Caller) -> Forbidden:
    has = ", ".join(sorted(caller.scopes)) or "none"
    detail = f"This needs a key with the scope {' and '.join(missing)}; this one has {has}."
    challenge = f'Bearer realm="distillery", error="insufficient_scope", scope="{" ".join(missing)}"'
    return Forbidden(detail, headers={"WWW-Authenticate": challenge})


def current_key(caller: Annotated[Caller, Depends(current_caller)]) -> str:
    """The id of the key that the request carries."""
    return caller.key_id


def wished_wait(
    prefer: Annotated[
        str | None,
        Header(
            description=f"`wait=N`: answer when there is news, or after N seconds (RFC 7240; at most {LONGEST_WAIT_SECONDS}).",
            examples=["wait=1"],
        ),
    ] = None,
) -> int | None:
    """How many seconds the client would wait; a preference that is not understood is ignored, as RFC 7240 says."""
    for preference in (prefer or "").split(","):
        found = re.fullmatch(r'\s*wait\s*=\s*"?(\d{1,6})"?\s*(?:;.*)?', preference, re.IGNORECASE)
        if found:
            return min(int(found[1]), LONGEST_WAIT_SECONDS)
    return None


def preferred_wait(wish: Annotated[int | None, Depends(wished_wait)]) -> int:
    """The same; who wishes nothing does not wait."""
    return wish or 0


Limit = Annotated[int, Query(ge=1, description=f"How many at most; more than {MOST} are {MOST}.")]


def window(
    limit: Limit = 50,
    cursor: Annotated[str | None, Query(max_length=200, description="`next_cursor` of the page before.")] = None,
    label: Annotated[
        list[str] | None, Query(description="Only those with this label, `name:value`; may be repeated.", max_length=16)
    ] = None,
    created_after: Annotated[
        AwareDatetime | None, Query(description="Only those made at this time or later.", examples=[A_TIME])
    ] = None,
    created_before: Annotated[
        AwareDatetime | None, Query(description="Only those made before this time.", examples=[A_TIME])
    ] = None,
) -> Window:
    """The page that is asked for."""
    times = [time.timestamp() if time else None for time in (created_after, created_before)]
    return Window(min(limit, MOST), cursor, parse_labels(label or []), *times)


def plain_window(
    limit: Limit = 50,
    cursor: Annotated[str | None, Query(max_length=200, description="`next_cursor` of the page before.")] = None,
) -> Window:
    """The page that is asked for of a list without labels."""
    return Window(min(limit, MOST), cursor)


def idempotency_key(
    idempotency_key: Annotated[
        str | None,
        Header(
            description="Any text of yours: the same text and body make one job, however often they are sent.",
            max_length=255,
            examples=["8e03978e-40d5-43e8-bc93-6894a57f9324"],
        ),
    ] = None,
) -> str | None:
    """The Idempotency-Key header."""
    if idempotency_key is not None and not idempotency_key.strip():
        raise Invalid([("Idempotency-Key", "must not be empty")])
    return idempotency_key


def current_watch(request: Request) -> RowWatch:
    """The poller of this process."""
    watch: RowWatch = request.app.state.watch
    return watch


Identifier = Annotated[str, Path(max_length=64, description="As its creation answered it.")]
CurrentKey = Annotated[str, Depends(current_key)]
"""Any key; a route that reads or changes something asks for one with a scope instead."""
JobsRead = Annotated[str, Security(current_key, scopes=["jobs:read"])]
JobsWrite = Annotated[str, Security(current_key, scopes=["jobs:write"])]
UploadsRead = Annotated[str, Security(current_key, scopes=["uploads:read"])]
UploadsWrite = Annotated[str, Security(current_key, scopes=["uploads:write"])]
Admin = Annotated[Caller, Security(current_caller, scopes=["admin"])]
PlainWindow = Annotated[Window, Depends(plain_window)]
CurrentWindow = Annotated[Window, Depends(window)]
CurrentWatch = Annotated[RowWatch, Depends(current_watch)]
IdempotencyKey = Annotated[str | None, Depends(idempotency_key)]
Wait = Annotated[int, Depends(preferred_wait)]
Wish = Annotated[int | None, Depends(wished_wait)]
