"""`/files`."""

from typing import Annotated

from fastapi import Body, Response

from api.dependencies import UploadsWrite
from api.files.schemas import FileBody
from api.files.service import FILES, values_of
from api.http.problem_documents import problems
from api.uploads.routes import created, upload_router
from models.spec.job_spec import FileSpec

router = upload_router(FILES)


@router.post(
    "",
    summary="Create a file",
    operation_id="create_file",
    status_code=201,
    response_model=FileBody,
    responses=problems(400, 413, 415, 422),
)
async def create_file(
    key: UploadsWrite,
    spec: Annotated[FileSpec, Body(examples=[{"kind": "weights", "name": "pretrained weights"}])],
    response: Response,
) -> FileBody:
    """Another input of a job, such as initial weights. Then PUT the bytes to the URL in `upload`."""
    return await created(FILES, key, values_of(spec), response)
