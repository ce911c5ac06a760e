"""What routes ask for in their signatures."""

import re
from typing import Annotated

from fastapi import Depends, Header, Query, Request, Security
from fastapi.security import HTTPBearer

from api import auth
from api.errors import Invalid
from api.jobs.feed import Feeds
from api.paging import MOST, Window, parse_labels
from api.watch import Watch

LONGEST_WAIT_SECONDS = 60

_bearer = HTTPBearer(
    auto_error=False, description="A key of the service, `dsk_…`. The first start leaves one in a file."
)


def current_key(request: Request, _: Annotated[object, Security(_bearer)]) -> str:
    """The id of the key that the request carries."""
    request.state.key_id = key_id = auth.authenticate(request.headers.get("authorization"))
    return key_id


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


def window(
    limit: Annotated[int, Query(ge=1, le=MOST, description="How many at most.")] = 50,
    cursor: Annotated[str | None, Query(max_length=200, description="`next_cursor` of the page before.")] = None,
    label: Annotated[
        list[str] | None, Query(description="Only those with this label, `name:value`; may be repeated.", max_length=16)
    ] = None,
) -> Window:
    """The page that is asked for."""
    return Window(limit, cursor, parse_labels(label or []))


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


def current_watch(request: Request) -> Watch:
    """The poller of this process."""
    watch: Watch = request.app.state.watch
    return watch


def current_feeds(request: Request) -> Feeds:
    """The feeds of this process."""
    feeds: Feeds = request.app.state.feeds
    return feeds


CurrentKey = Annotated[str, Depends(current_key)]
CurrentWindow = Annotated[Window, Depends(window)]
CurrentWatch = Annotated[Watch, Depends(current_watch)]
CurrentFeeds = Annotated[Feeds, Depends(current_feeds)]
IdempotencyKey = Annotated[str | None, Depends(idempotency_key)]
Wait = Annotated[int, Depends(preferred_wait)]
Wish = Annotated[int | None, Depends(wished_wait)]
