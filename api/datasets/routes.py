"""`/datasets`."""

from typing import Annotated

from fastapi import Body, Request, Response

from api.datasets.schemas import DatasetBody
from api.datasets.service import DATASETS, samples, values_of
from api.dependencies import Identifier, UploadsRead, UploadsWrite
from api.http.conditional import NOT_MODIFIED
from api.http.downloads import serve
from api.http.problem_documents import problems
from api.uploads.routes import created, upload_router
from models.spec.job_spec import DatasetSpec

router = upload_router(DATASETS)
BINARY = {"schema": {"type": "string", "format": "binary"}}


@router.post(
    "",
    summary="Create a dataset",
    operation_id="create_dataset",
    status_code=201,
    response_model=DatasetBody,
    responses=problems(400, 413, 415, 422),
)
async def create_dataset(
    key: UploadsWrite, spec: Annotated[DatasetSpec, Body(examples=[{"name": "digits"}])], response: Response
) -> DatasetBody:
    """With a `source`, the service reads the files itself. Else PUT the bytes to the URL in `upload`: a zip or tar with one folder for each class, or an npz file (docs/inputs.md)."""
    return await created(DATASETS, key, values_of(spec), response)


@router.get(
    "/{identifier}/samples.png",
    summary="Show some images of a dataset",
    operation_id="show_samples",
    response_class=Response,
    responses={
        200: {"description": "A PNG.", "content": {"application/octet-stream": BINARY}},
        **NOT_MODIFIED,
        **problems(404, 410, 422),
    },
)
def show_samples(key: UploadsRead, identifier: Identifier, request: Request) -> Response:
    """A sheet that the inspection made: a row for each of the first classes (`findings.samples`), or the first images."""
    return serve(request, samples(key, identifier))
