"""`/jobs/{id}/events`, `/metrics`, `/previews` and `/artifacts`."""

import re
from typing import Annotated, Any

from fastapi import APIRouter, Depends, Header, Path, Query, Request, Response
from fastapi.sse import EventSourceResponse
from starlette.concurrency import run_in_threadpool

from api.dependencies import Identifier, JobsRead
from api.http.bodies import StrictRoute
from api.http.conditional import NOT_MODIFIED, IfNoneMatch
from api.http.downloads import Streamed, disposition, serve, zipped
from api.http.errors import BadHeader
from api.http.paging import CURSOR, Page
from api.http.problem_documents import problems
from api.jobs import outputs
from api.jobs.feed import Feeds
from api.jobs.schemas import ArtifactBody, EventBody, MetricBody, PreviewBody
from api.jobs.stream import stream
from models.records import Artifact, Preview

router = APIRouter(prefix="/jobs/{identifier}", tags=["jobs"], route_class=StrictRoute)

FileName = Annotated[str, Path(max_length=255, description="Name of the file, from the list.")]
Number = Annotated[int, Path(ge=1, le=2**31 - 1, description="Number of the attempt.")]
After = Annotated[int, Query(ge=0, le=2**31 - 1, description="Only events with a number above this.")]
Limit = Annotated[int, Query(ge=1, description="Largest number of entries; values above 1000 mean 1000.")]
Cursor = Annotated[
    str | None, Query(max_length=400, description="`next_cursor` of the previous page.", json_schema_extra=CURSOR)
]
BINARY = {"schema": {"type": "string", "format": "binary"}}
DOWNLOAD: dict[int | str, dict[str, Any]] = {
    200: {"description": "The bytes.", "content": {"application/octet-stream": BINARY}},
    206: {"description": "The requested range.", "content": {"application/octet-stream": BINARY}},
    307: {"description": "Redirect to the storage, if clients can reach it."},
    **NOT_MODIFIED,
    **problems(404, 410, 416, 422),
}
RANGE_HEADERS = [
    {"name": name, "in": "header", "required": False, "schema": {"type": "string"}, "description": about}
    for name, about in (
        ("Range", "One range of bytes: `bytes=0-99`."),
        ("If-Range", "`ETag` that the range applies to. If it does not match, the whole file is sent."),
    )
]
STREAM = {
    "description": "A page, or with `Accept: text/event-stream` a stream of server-sent events. The type of a message is "
    "the type of the event, its `id` is the number of the event. Messages of type `metrics` have no id and hold the "
    "newest value of every metric. After 15 seconds without a message a comment is sent to keep the connection open. "
    "The stream ends with the job.",
    "content": {
        "text/event-stream": {
            "schema": {"type": "string"},
            "example": 'retry: 2000\n\nevent: progress\ndata: {"seq": 7, "type": "progress", "message": "step 20 of 90"}\n'
            'id: 7\n\nevent: metrics\ndata: {"seq": 7, "type": "metrics", "data": {"loss": {"step": 20, "value": 0.3}}}\n\n',
        }
    },
}
RANGE_PARAMETERS = {"parameters": RANGE_HEADERS}


def current_feeds(request: Request) -> Feeds:
    """The feeds of this process."""
    feeds: Feeds = request.app.state.feeds
    return feeds


CurrentFeeds = Annotated[Feeds, Depends(current_feeds)]


@router.get(
    "/events",
    summary="List or follow a job's events",
    operation_id="list_events",
    response_model=Page[EventBody],
    responses=problems(400, 404, 422)
    | {200: STREAM, 204: {"description": "The job has ended and has no later event: do not reconnect."}},
)
async def list_events(
    key: JobsRead,
    feeds: CurrentFeeds,
    identifier: Identifier,
    after: After = 0,
    limit: Limit = 200,
    cursor: Cursor = None,
    accept: Annotated[str, Header(description="`text/event-stream` follows the job until it has ended.")] = "",
    last_event_id: Annotated[str | None, Header(description="Number of the last event received.")] = None,
) -> Any:
    """Oldest first. As server-sent events, `Last-Event-ID` continues without gaps or repeats; messages of type `metrics`
    hold the newest value of every metric."""
    if "text/event-stream" not in accept:
        return await run_in_threadpool(outputs.events, key, identifier, after, min(limit, 1000), cursor)
    if last_event_id is not None:
        if not re.fullmatch(r"\d{1,9}", last_event_id):
            raise BadHeader("Last-Event-ID must be the number of an event: its 'seq'.")
        after = int(last_event_id)
    if await run_in_threadpool(outputs.has_no_more, key, identifier, after):
        return Response(status_code=204)  # stops a browser's EventSource from reconnecting
    headers = {"Cache-Control": "no-cache", "X-Accel-Buffering": "no"}
    return EventSourceResponse(stream(feeds, key, identifier, after), headers=headers)


@router.get(
    "/metrics",
    summary="List a job's metrics",
    operation_id="list_metrics",
    response_model=Page[MetricBody],
    responses=problems(400, 404, 422),
)
def list_metrics(
    key: JobsRead,
    identifier: Identifier,
    name: Annotated[
        list[Annotated[str, Query(max_length=128, pattern=r"^[^\x00]*$")]] | None,
        Query(max_length=100, description="Only metrics with this name. May be repeated."),
    ] = None,
    after: Annotated[int | None, Query(ge=-1, le=2**31 - 1, description="Only steps above this.")] = None,
    limit: Annotated[
        int, Query(ge=1, description="Largest number of entries; values above 10,000 mean 10,000.")
    ] = 1000,
    cursor: Cursor = None,
) -> Page[MetricBody]:
    """Ordered by name and step. Infinite values and NaN are null."""
    return outputs.metrics(key, identifier, name or [], after, min(limit, 10_000), cursor)


@router.get(
    "/previews",
    summary="List a job's previews",
    operation_id="list_previews",
    response_model=Page[PreviewBody],
    responses=problems(404, 422),
)
def list_previews(key: JobsRead, identifier: Identifier) -> Page[PreviewBody]:
    """Preview images, newest step first. They are available while the job runs, and also if it fails."""
    return outputs.previews(key, identifier)


@router.get(
    "/artifacts",
    summary="List a job's artifacts",
    operation_id="list_artifacts",
    response_model=Page[ArtifactBody],
    responses=problems(404, 422),
)
def list_artifacts(key: JobsRead, identifier: Identifier) -> Page[ArtifactBody]:
    """Ordered by name. Artifacts appear when the job has succeeded, and are removed at `artifacts_expire_at` if it is set."""
    return outputs.artifacts(key, identifier)


@router.get(
    "/artifacts.zip",
    summary="Download all artifacts",
    operation_id="download_artifacts",
    response_class=Response,
    responses=problems(404, 409, 410, 422)
    | {200: {"description": "A zip file.", "content": {"application/zip": BINARY}}},
)
def download_all(key: JobsRead, identifier: Identifier) -> Response:
    """All artifacts in one uncompressed zip file."""
    job, blobs = outputs.all_artifacts(key, identifier)
    archive = zipped(blobs)
    headers = {
        "Content-Disposition": disposition(f"{job.name}.zip"),
        "Content-Length": str(len(archive)),
        "Cache-Control": "private, no-cache",
    }
    return Streamed(archive, headers=headers, media_type="application/zip")


@router.head(
    "/artifacts/{name:path}",
    summary="Size and SHA-256 of an artifact",
    operation_id="head_artifact",
    response_class=Response,
    responses=DOWNLOAD,
)
@router.get(
    "/artifacts/{name:path}",
    summary="Download an artifact",
    operation_id="download_artifact",
    response_class=Response,
    responses=DOWNLOAD,
    openapi_extra=RANGE_PARAMETERS,
)
def download_artifact(
    key: JobsRead, identifier: Identifier, name: FileName, request: Request, if_none_match: IfNoneMatch = None
) -> Response:
    """`ETag` is the SHA-256. Supports a single `Range`, `If-Range` and `If-None-Match`."""
    return serve(request, outputs.blob(Artifact, key, identifier, name))


@router.head(
    "/attempts/{number}/log",
    summary="Size of an attempt's log",
    operation_id="head_log",
    response_class=Response,
    responses=DOWNLOAD,
)
@router.get(
    "/attempts/{number}/log",
    summary="Download an attempt's log",
    operation_id="download_log",
    response_class=Response,
    responses=DOWNLOAD,
    openapi_extra=RANGE_PARAMETERS,
)
def download_log(
    key: JobsRead, identifier: Identifier, number: Number, request: Request, if_none_match: IfNoneMatch = None
) -> Response:
    """The engine's standard error. Available once the attempt has ended, with any outcome."""
    return serve(request, outputs.attempt_log(key, identifier, number))


@router.head(
    "/previews/{name:path}",
    summary="Size and SHA-256 of a preview",
    operation_id="head_preview",
    response_class=Response,
    responses=DOWNLOAD,
)
@router.get(
    "/previews/{name:path}",
    summary="Download a preview",
    operation_id="download_preview",
    response_class=Response,
    responses=DOWNLOAD,
    openapi_extra=RANGE_PARAMETERS,
)
def download_preview(
    key: JobsRead, identifier: Identifier, name: FileName, request: Request, if_none_match: IfNoneMatch = None
) -> Response:
    """Like the download of an artifact."""
    return serve(request, outputs.blob(Preview, key, identifier, name))
