"""The end of an attempt's log, on the page of its job."""

from typing import Any

from fastapi import APIRouter, Request, Response

from api.dashboard.job_page import Identifier, Number, body_of
from api.dashboard.rendering import render
from api.dashboard.shared_pages import SharedPages
from api.dashboard.visitors import CurrentVisitor, PageRoute, Visitor, require
from api.http.downloads import read_end
from api.http.errors import Gone, NotFound
from api.jobs import outputs

router = APIRouter(prefix="/jobs", route_class=PageRoute, include_in_schema=False)
LOG_BYTES, LOG_LINES = 128 * 1024, 400
"""The end of a log that the page shows."""


@router.get("/{identifier}/attempts/{number}/log-end")
async def show_log(request: Request, visitor: CurrentVisitor, identifier: Identifier, number: Number) -> Response:
    """The last lines of an attempt's log, shared by all who look at them."""
    require(visitor, "jobs:read")
    shared: SharedPages = request.app.state.pages
    values = await shared.read(("log", visitor.key_id, identifier, number), lambda: _log(visitor, identifier, number))
    return render(request, "part_log.html", job_id=identifier, number=number, **values)


def _log(visitor: Visitor, identifier: str, number: int) -> dict[str, Any]:
    job = body_of(visitor, identifier)
    runs = any(one.number == number and one.ended_at is None for one in job.attempts)
    try:
        log = outputs.attempt_log(visitor.key_id, identifier, number)
        text = read_end(log, LOG_BYTES).decode(errors="replace")
    except (NotFound, Gone) as error:
        return {"lines": [], "cut": False, "runs": runs, "why": error.detail}
    lines = text.splitlines()
    cut = len(text.encode()) < log.size or len(lines) > LOG_LINES
    return {"lines": lines[-LOG_LINES:], "cut": cut, "runs": runs, "why": "The log is empty."}
