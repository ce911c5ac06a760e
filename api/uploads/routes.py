"""The routes that teachers, datasets and files share."""

from typing import Annotated, Any

from fastapi import APIRouter, Query, Request, Response
from starlette.concurrency import run_in_threadpool

from api.dependencies import CurrentWatch, CurrentWindow, Identifier, UploadsRead, UploadsWrite, Wait
from api.http.bodies import StrictRoute
from api.http.conditional import NOT_MODIFIED, IfNoneMatch, conditional, confirm_wait, tag_of
from api.http.paging import Page
from api.http.problem_documents import problems
from api.uploads.exchange import receive, wait_for_change, wait_for_inspection
from api.uploads.service import B, R, UploadEdit, Uploads
from models.status import UploadStatus

BYTES = {
    "requestBody": {
        "required": True,
        "content": {"application/octet-stream": {"schema": {"type": "string", "format": "binary"}}},
    }
}


def upload_router(uploads: Uploads[R, B]) -> APIRouter:
    """A router with the routes to list, show, change and delete uploads of one kind, and to PUT their bytes."""
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
        status: Annotated[UploadStatus | None, Query(description="Only uploads with this status.")] = None,
    ) -> Any:
        """Newest first."""
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
        """With `Prefer: wait=N`, the response is delayed until the upload is ready or rejected, or differs from the `ETag` in
        `If-None-Match` (without that header: from its current state), or N seconds have passed."""
        found = await wait_for_change(uploads, watch, key, identifier, wait, if_none_match)
        confirm_wait(response, wait)
        return conditional(response, found, tag_of(found), if_none_match)

    @router.patch(
        "/{identifier}",
        summary=f"Change the name or labels of a {kind}",
        operation_id=f"edit_{kind}",
        response_model=body,
        responses=problems(400, 404, 413, 415, 422),
    )
    def edit(key: UploadsWrite, identifier: Identifier, changes: UploadEdit) -> Any:
        """Fields that are left out do not change."""
        return uploads.edit(key, identifier, changes)

    @router.delete(
        "/{identifier}",
        summary=f"Delete a {kind} and its bytes",
        operation_id=f"delete_{kind}",
        status_code=204,
        responses=problems(404, 409, 422),
    )
    def delete(key: UploadsWrite, identifier: Identifier) -> None:
        """Fails with 409 while an unfinished job uses the upload."""
        uploads.delete(key, identifier)

    @router.put(
        "/{identifier}/content",
        summary=f"Upload the bytes of a {kind}",
        operation_id=f"upload_{kind}",
        status_code=202,
        response_model=body,
        responses=problems(400, 404, 409, 413, 415, 422)
        | {200: {"model": body, "description": "The inspection has ended, or further ranges are missing."}},
        openapi_extra=BYTES,
    )
    async def put(
        key: UploadsWrite, watch: CurrentWatch, identifier: Identifier, wait: Wait, request: Request, response: Response
    ) -> Any:
        """Send the raw bytes, as `curl -T FILE URL` does. A SHA-256 in `Content-Digest`, `Repr-Digest` or `Digest` is checked.

        With `Content-Range: bytes FIRST-LAST/TOTAL` the body is a range of the bytes, and the next one must follow it: `received` says
        how many bytes there are. `Content-Digest` is then of the range, and `Repr-Digest` of the whole.

        With `Prefer: wait=N` the response waits for the inspection: 200 with `ready` or `rejected`, or 202 after N seconds.
        """
        await receive(uploads, key, identifier, request)
        found = await wait_for_inspection(uploads, watch, key, identifier, wait)
        confirm_wait(response, wait)
        response.status_code = 202 if found.status == UploadStatus.INSPECTING else 200
        return found

    return router


async def created(uploads: Uploads[R, B], key_id: str, values: dict[str, Any], response: Response) -> B:
    """Create an upload, and set `Location` to its URL."""
    body = await run_in_threadpool(uploads.create, key_id, values)
    response.headers["Location"] = body.links["self"]
    return body
