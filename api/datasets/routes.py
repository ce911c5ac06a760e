"""`/datasets`."""

from typing import Annotated

from fastapi import Body, Response

from api.datasets.schemas import DatasetBody
from api.datasets.service import DATASETS, values_of
from api.dependencies import UploadsWrite
from api.http.problem_documents import problems
from api.uploads.routes import created, upload_router
from models.spec.job_spec import DatasetSpec

router = upload_router(DATASETS)


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
