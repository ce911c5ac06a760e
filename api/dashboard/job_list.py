"""`/`: the list of jobs."""

from typing import Annotated, Any
from urllib.parse import urlencode

from fastapi import APIRouter, Depends, Query, Request, Response
from starlette.concurrency import run_in_threadpool

from api.access import sessions
from api.dashboard.rendering import HEADERS, render
from api.dashboard.shared_pages import SharedPages
from api.dashboard.visitors import CurrentPoll, CurrentVisitor, PageRoute, Visitor, require
from api.health.routes import workers_now
from api.http.paging import Window, parse_labels
from api.jobs.overview import lines
from models.status import JobStatus

router = APIRouter(route_class=PageRoute, include_in_schema=False)
MOST_JOBS = 1000
WORKERS_SECONDS = 5.0
"""Age of what a page shows of the workers; it asks every 10 seconds."""
Text = Annotated[str, Query(max_length=255)]


class Filters:
    """The filters of the list, as they are in the URL."""

    def __init__(self, status: list[str], name: str, label: str, cursor: str, limit: int, experiment: str):
        self.status = [one for one in status if one in list(JobStatus)]
        self.name, self.label, self.cursor, self.experiment = (
            text.replace("\0", "") for text in (name, label, cursor, experiment)
        )
        self.limit = max(1, min(limit, MOST_JOBS))

    def query(self, **changes: Any) -> str:
        """The filters as a query string, with changes."""
        given = {
            "status": self.status, "name": self.name, "label": self.label, "experiment": self.experiment,
            "cursor": self.cursor, "limit": self.limit if self.limit != 50 else "",
        } | changes  # fmt: skip
        return urlencode({name: value for name, value in given.items() if value}, doseq=True)

    def window(self) -> Window:
        """The page of the list that they ask for.

        Raises:
            Invalid: the label has another form than `name:value`.
        """
        return Window(self.limit, self.cursor or None, parse_labels([self.label] if self.label else []))


def filters_of(
    status: Annotated[list[str] | None, Query(max_length=8)] = None,
    name: Text = "",
    label: Annotated[str, Query(max_length=400)] = "",
    cursor: Text = "",
    limit: int = 50,
    experiment: Annotated[str, Query(max_length=64)] = "",
) -> Filters:
    """The filters of a request."""
    return Filters(status or [], name, label, cursor, limit, experiment)


CurrentFilters = Annotated[Filters, Depends(filters_of)]


def _read(visitor: Visitor, filters: Filters) -> dict[str, Any]:
    statuses = [JobStatus(one) for one in filters.status]
    window, experiment = filters.window(), filters.experiment or None
    found, cursor = lines(visitor.key_id, window, statuses, filters.name, experiment, sessions.Renewal())
    return {"lines": found, "next_cursor": cursor}


async def _part(request: Request, visitor: Visitor, filters: Filters) -> bytes:
    """The rows of the table, shared by browsers that ask for the same."""
    shared: SharedPages = request.app.state.pages

    def answer() -> bytes:
        return bytes(render(request, "part_jobs.html", filters=filters, **_read(visitor, filters)).body)

    found: bytes = await shared.read(("jobs", visitor.key_id, filters.query()), answer)
    return found


@router.get("/")
async def show(request: Request, visitor: CurrentVisitor, filters: CurrentFilters) -> Response:
    """The page with its filters."""
    require(visitor, "jobs:read")
    rows = await _part(request, visitor, filters)
    workers = await request.app.state.pages.read("workers", workers_now)
    return render(request, "jobs.html", filters=filters, rows=rows.decode(), statuses=list(JobStatus), workers=workers)


@router.get("/parts/jobs")
async def part(request: Request, poll: CurrentPoll, filters: CurrentFilters) -> Response:
    """The rows alone, which the page asks for again and again."""
    require(poll.visitor, "jobs:read")
    body = await _part(request, poll.visitor, filters)
    await poll.confirm("jobs:read")
    return Response(body, media_type="text/html; charset=utf-8", headers=HEADERS)


@router.get("/parts/workers")
async def workers(request: Request, visitor: CurrentVisitor) -> Response:
    """What each worker does now."""
    found = await request.app.state.pages.read("workers", workers_now, WORKERS_SECONDS)
    return await run_in_threadpool(render, request, "part_workers.html", workers=found)
