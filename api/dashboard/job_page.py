"""`/jobs/{id}`: one job, its live events, curves, images and files."""

import json
from collections import defaultdict
from collections.abc import Callable
from typing import Annotated, Any

from fastapi import APIRouter, Path, Query, Request, Response
from fastapi.responses import JSONResponse, RedirectResponse
from fastapi.sse import EventSourceResponse
from starlette.concurrency import run_in_threadpool

from api.access import sessions
from api.dashboard.job_words import about, calls
from api.dashboard.rendering import DOWNLOAD_POLICY, HEADERS, render
from api.dashboard.shared_pages import FRESH_SECONDS, SharedPages
from api.dashboard.visitors import CurrentPoll, CurrentVisitor, PageRoute, Poll, Visitor, require
from api.http.downloads import Streamed, disposition, serve, zipped
from api.http.errors import Gone, NotFound
from api.http.paging import Window
from api.http.row_watch import Token, token_of
from api.jobs import outputs, service, stream
from api.jobs.curves import curves
from api.jobs.estimates import Estimate, estimates
from api.jobs.overview import job_now
from api.jobs.queue import Queue
from api.jobs.schemas import JobBody, PreviewBody
from api.jobs.submission import Submission
from api.reports.compression import tables
from api.reports.page import report_page
from api.reports.previews import SHOWN, name_of
from api.reports.routes import answer
from api.webhooks.service import deliveries
from models.database import reading
from models.records import Artifact, Job, Preview
from models.status import JobStatus

router = APIRouter(prefix="/jobs", route_class=PageRoute, include_in_schema=False)
Identifier = Annotated[str, Path(pattern=r"^job_[0-9a-f]{32}$")]
Number = Annotated[int, Path(ge=1, le=2**31 - 1)]
FileName = Annotated[str, Path(max_length=255)]
EVENTS = 100
"""Number of newest events on the page."""
REPORT_BYTES = 4 * 2**20
"""Largest `report.json` that the page reads."""


def body_of(visitor: Visitor, identifier: str) -> JobBody:
    """A job of the visitor's key."""
    with reading() as session:
        return service.job_body(session, service.find(session, visitor.key_id, identifier))


def report_of(visitor: Visitor, identifier: str) -> dict[str, Any] | None:
    """The report of a job that has succeeded; None without one."""
    try:
        data = outputs.small_artifact(visitor.key_id, identifier, "report.json", REPORT_BYTES)
        found = json.loads(data) if data is not None else None
    except (NotFound, Gone, ValueError):
        return None
    return found if isinstance(found, dict) else None


def _gathered(visitor: Visitor, identifier: str) -> dict[str, Any]:
    job = body_of(visitor, identifier)
    artifacts = outputs.artifacts(visitor.key_id, identifier).data
    previews = outputs.previews(visitor.key_id, identifier).data
    newest = outputs.newest_events(visitor.key_id, identifier, EVENTS)
    report = report_of(visitor, identifier) if job.status == JobStatus.SUCCEEDED else None
    return {
        "job": job,
        "expected": expected_of(visitor, job),
        "artifacts": artifacts,
        "series": series_of(previews),
        "events": newest,
        "report": report,
        "tables": tables(job.resolved, report or {}),
        "about": about(visitor.key_id, job),
        "calls": calls(job),
        "deliveries": deliveries(visitor.key_id, identifier, Window(20, None)).data,
        "last_seq": max((event.seq for event in newest), default=0),
    }


def expected_of(visitor: Visitor, job: JobBody) -> list[Estimate]:
    """The estimates for a job that has not ended and whose own speed is not known yet."""
    if job.status.final or job.expected_end_at is not None:
        return []
    with reading() as session:
        return estimates(session, visitor.key_id, job.resolved)


def series_of(previews: list[PreviewBody]) -> list[dict[str, Any]]:
    """Previews by what they show, each with its images in the order of the steps."""
    found: dict[str, list[PreviewBody]] = defaultdict(list)
    for preview in previews:
        found[name_of(preview)].append(preview)
    order = sorted(found, key=lambda name: (name in ("class-means", "first-filters"), name))
    return [
        {"name": name, "images": sorted(found[name], key=lambda one: one.step), "shows": SHOWN.get(name)}
        for name in order
    ]


@router.get("/{identifier}")
async def show(request: Request, visitor: CurrentVisitor, identifier: Identifier) -> Response:
    """The whole page."""
    require(visitor, "jobs:read")
    values = await run_in_threadpool(_gathered, visitor, identifier)
    return await run_in_threadpool(render, request, "job.html", **values)


@router.get("/{identifier}/status")
async def show_status(request: Request, poll: CurrentPoll, identifier: Identifier) -> Response:
    """The status alone, which the page renews a second after the job has changed; shared by all who look at it."""

    def part(row: Job) -> bytes:
        with reading() as session:
            job = service.short_body(row, Queue(session))
        return bytes(render(request, "part_status.html", job=job, expected=expected_of(poll.visitor, job)).body)

    return await _shared(request, poll, identifier, "status", part)


@router.get("/{identifier}/images")
async def show_images(request: Request, poll: CurrentPoll, identifier: Identifier) -> Response:
    """The images alone, which the page renews after a new one; shared by all who look at them."""

    def part(_: Job) -> bytes:
        previews = outputs.previews(poll.visitor.key_id, identifier).data
        return bytes(render(request, "part_images.html", series=series_of(previews), job_id=identifier).body)

    return await _shared(request, poll, identifier, "images", part)


async def _shared(request: Request, poll: Poll, identifier: str, name: str, part: Callable[[Job], bytes]) -> Response:
    """A part of the page. One statement finds out whether the job has changed; if it has not, the last part is still right."""
    require(poll.visitor, "jobs:read")
    pages: SharedPages = request.app.state.pages
    question = name, poll.visitor.key_id, identifier

    def answer() -> tuple[Token, bytes]:
        row = job_now(poll.visitor.key_id, identifier, sessions.Renewal())
        token = token_of(row)
        last: tuple[Token, bytes] | None = pages.last(question)
        # of a queued job, other jobs and the workers change what the page says
        if last is not None and last[0] == token and row.status != JobStatus.QUEUED:
            return last
        return token, part(row)

    _, body = await pages.read(question, answer)
    await poll.confirm("jobs:read")
    return Response(body, media_type="text/html; charset=utf-8", headers=HEADERS)


@router.get("/{identifier}/curves")
async def show_curves(request: Request, visitor: CurrentVisitor, identifier: Identifier) -> Response:
    """Steps and values of every metric as JSON, thinned to what a chart can show."""
    require(visitor, "jobs:read")
    found = await run_in_threadpool(curves, visitor.key_id, identifier)
    return JSONResponse(found, headers=HEADERS)


@router.get("/{identifier}/events")
async def follow(
    request: Request,
    visitor: CurrentVisitor,
    identifier: Identifier,
    after: Annotated[int, Query(ge=0, le=2**31 - 1)] = 0,
) -> Response:
    """The job's events as server-sent events, as `GET /v1/jobs/{id}/events` sends them."""
    require(visitor, "jobs:read")
    last = request.headers.get("last-event-id", "")
    after = int(last) if last.isdecimal() and len(last) < 10 else after
    if await run_in_threadpool(outputs.has_no_more, visitor.key_id, identifier, after):
        return Response(status_code=204, headers=HEADERS)
    messages = stream.stream(request.app.state.feeds, visitor.key_id, identifier, after, FRESH_SECONDS)
    return EventSourceResponse(messages, headers=HEADERS | {"X-Accel-Buffering": "no"})


@router.get("/{identifier}/report.html")
def download_report(visitor: CurrentVisitor, identifier: Identifier) -> Response:
    """The report of a job that has ended."""
    require(visitor, "jobs:read")
    return answer(report_page(visitor.key_id, identifier), identifier)


@router.get("/{identifier}/artifacts.zip")
def download_all(request: Request, visitor: CurrentVisitor, identifier: Identifier) -> Response:
    """All artifacts as one file."""
    require(visitor, "jobs:read")
    job, blobs = outputs.all_artifacts(visitor.key_id, identifier)
    archive = zipped(blobs)
    headers = DOWNLOAD_POLICY | {
        "Content-Disposition": disposition(f"{job.name}.zip"),
        "Content-Length": str(len(archive)),
    }
    return Streamed(archive, headers=headers, media_type="application/zip")


@router.get("/{identifier}/artifacts/{name:path}")
def download(request: Request, visitor: CurrentVisitor, identifier: Identifier, name: FileName) -> Response:
    """One artifact."""
    require(visitor, "jobs:read")
    return _file(serve(request, outputs.blob(Artifact, visitor.key_id, identifier, name)))


@router.get("/{identifier}/previews/{name:path}")
def preview(request: Request, visitor: CurrentVisitor, identifier: Identifier, name: FileName) -> Response:
    """One image."""
    require(visitor, "jobs:read")
    return _file(serve(request, outputs.blob(Preview, visitor.key_id, identifier, name)))


@router.get("/{identifier}/attempts/{number}/log")
def download_log(request: Request, visitor: CurrentVisitor, identifier: Identifier, number: Number) -> Response:
    """The log of an attempt."""
    require(visitor, "jobs:read")
    return _file(serve(request, outputs.attempt_log(visitor.key_id, identifier, number)))


def _file(response: Response) -> Response:
    response.headers.update(DOWNLOAD_POLICY)
    return response


@router.post("/{identifier}/cancel")
def cancel(visitor: CurrentVisitor, identifier: Identifier) -> Response:
    """Cancel the job."""
    require(visitor, "jobs:write")
    service.cancel(visitor.key_id, identifier)
    return RedirectResponse(f"/jobs/{identifier}", 303, HEADERS)


@router.post("/{identifier}/retry")
async def retry(request: Request, visitor: CurrentVisitor, identifier: Identifier) -> Response:
    """Submit the job again."""
    require(visitor, "jobs:write")
    job, _ = await request.app.state.submissions.submit(Submission(visitor.key_id, None, retry_of=identifier))
    return RedirectResponse(f"/jobs/{job.id}", 303, HEADERS)


@router.post("/{identifier}/delete")
def delete(visitor: CurrentVisitor, identifier: Identifier) -> Response:
    """Delete a job that has ended."""
    require(visitor, "jobs:write")
    service.remove(visitor.key_id, identifier)
    return RedirectResponse("/", 303, HEADERS)
