"""The routes that teachers, datasets and files share."""

from typing import Annotated, Any

from fastapi import APIRouter, Query, Request, Response
from starlette.concurrency import run_in_threadpool

from api.dependencies import CurrentWatch, CurrentWindow, Identifier, UploadsRead, UploadsWrite, Wait
from api.http.bodies import StrictRoute
from api.http.conditional import NOT_MODIFIED, IfNoneMatch, applied, conditional, tag_of
from api.http.paging import Page
from api.http.problem_documents import problems
from api.uploads.exchange import news, receive, verdict
from api.uploads.service import B, R, UploadEdit, Uploads
from models.status import UploadStatus

BYTES = {
    "requestBody": {
        "required": True,
        "content": {"application/octet-stream": {"schema": {"type": "string", "format": "binary"}}},
    }
}


def upload_router(uploads: Uploads[R, B]) -> APIRouter:
    """List, show, change, delete, and the PUT of the bytes."""
    kind = uploads.kind
    router = APIRouter(prefix=uploads.path, tags=[uploads.path.strip("/")], route_class=StrictRoute)
    body: Any = uploads.body

    @router.get(
        "",
        summary=f"List {kind}s",
        operation_id=f"list_{kind}s",
        response_model=Page[body],
        responses=problems(400, 422),
    )
    def list_uploads(
        key: UploadsRead,
        window: CurrentWindow,
        status: Annotated[UploadStatus | None, Query(description="Only those in this state.")] = None,
    ) -> Any:
        """The newest first."""
        return uploads.page(key, window, status)

    @router.get(
        "/{identifier}",
        summary=f"Show a {kind}",
        operation_id=f"get_{kind}",
        response_model=body,
        responses=problems(404, 422) | NOT_MODIFIED,
    )
    async def show(
        key: UploadsRead,
        watch: CurrentWatch,
        identifier: Identifier,
        wait: Wait,
        response: Response,
        if_none_match: IfNoneMatch = None,
    ) -> Any:
        """With `Prefer: wait=N`, as soon as it differs from what `If-None-Match` names, or is ready or rejected."""
        found = await news(uploads, watch, key, identifier, wait, if_none_match)
        applied(response, wait)
        return conditional(response, found, tag_of(found), if_none_match)

    @router.patch(
        "/{identifier}",
        summary=f"Change the name or labels of a {kind}",
        operation_id=f"edit_{kind}",
        response_model=body,
        responses=problems(400, 404, 413, 415, 422),
    )
    def edit(key: UploadsWrite, identifier: Identifier, changes: UploadEdit) -> Any:
        """What is left out stays as it is."""
        return uploads.edit(key, identifier, changes)

    @router.delete(
        "/{identifier}",
        summary=f"Delete a {kind} and its bytes",
        operation_id=f"delete_{kind}",
        status_code=204,
        responses=problems(404, 409, 422),
    )
    def delete(key: UploadsWrite, identifier: Identifier) -> None:
        """Refused while a job that has not ended uses it."""
        uploads.delete(key, identifier)

    @router.put(
        "/{identifier}/content",
        summary=f"Send the bytes of a {kind}",
        operation_id=f"upload_{kind}",
        status_code=202,
        response_model=body,
        responses=problems(400, 404, 409, 413, 415, 422, 507)
        | {200: {"model": body, "description": "The inspection is over."}},
        openapi_extra=BYTES,
    )
    async def put(
        key: UploadsWrite, watch: CurrentWatch, identifier: Identifier, wait: Wait, request: Request, response: Response
    ) -> Any:
        """The raw bytes, as `curl -T FILE LINK` sends them. `Content-Digest` or `Repr-Digest` with a SHA-256 is checked.

        With `Prefer: wait=N` the answer waits for the inspection: 200 with `ready` or `rejected`, else 202.
        """
        await receive(uploads, key, identifier, request)
        found = await verdict(uploads, watch, key, identifier, wait)
        applied(response, wait)
        response.status_code = 202 if found.status == UploadStatus.INSPECTING else 200
        return found

    return router


async def created(uploads: Uploads[R, B], key_id: str, values: dict[str, Any], response: Response) -> B:
    """A new upload, with its address in `Location`."""
    body = await run_in_threadpool(uploads.create, key_id, values)
    response.headers["Location"] = body.links["self"]
    return body
