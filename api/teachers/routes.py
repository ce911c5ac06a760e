"""`/teachers`."""

from typing import Annotated, Any

from fastapi import Body, Response
from starlette.concurrency import run_in_threadpool

from api.dependencies import UploadsWrite
from api.http.problem_documents import problems
from api.teachers.schemas import TeacherBody
from api.teachers.service import TEACHERS, values_of
from api.uploads.routes import created, upload_router
from models.spec.job_spec import TeacherSpec

router = upload_router(TEACHERS)

EXAMPLE: dict[str, Any] = {
    "name": "digits",
    "network": "lenet5",
    "classes": 10,
    "input": {"channels": 1, "height": 32, "width": 32, "mean": [0.1307], "std": [0.3081]},
}


@router.post(
    "",
    summary="Create a teacher",
    operation_id="create_teacher",
    status_code=201,
    response_model=TeacherBody,
    responses=problems(400, 413, 415, 422),
)
async def create_teacher(
    key: UploadsWrite, spec: Annotated[TeacherSpec, Body(examples=[EXAMPLE])], response: Response
) -> TeacherBody:
    """Describe the network and its input; or name a `dataset` with labels, by whose images they are found. Then PUT the checkpoint to the URL in `upload`: a file of `torch.save` (old or new
    format, with a state dict anywhere in it, or a whole network), safetensors, npz, or an archive with one of these."""
    values = await run_in_threadpool(values_of, key, spec)
    return await created(TEACHERS, key, values, response)
