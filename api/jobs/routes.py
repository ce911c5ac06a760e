"""`/jobs`."""

from typing import Annotated, Any

from fastapi import APIRouter, Body, Query, Request, Response
from starlette.concurrency import run_in_threadpool

from api.dependencies import CurrentWatch, CurrentWindow, IdempotencyKey, Identifier, JobsRead, JobsWrite, Wait, Wish
from api.http.bodies import StrictRoute
from api.http.conditional import NOT_MODIFIED, IfNoneMatch, applied, conditional
from api.http.paging import Page
from api.http.problem_documents import problems
from api.jobs import service, submission, validation
from api.jobs.news import fresh, tag_of
from api.jobs.schemas import JobBody, JobSummary, Validated
from models.spec.job_spec import JobSpec
from models.status import JobStatus

router = APIRouter(prefix="/jobs", tags=["jobs"], route_class=StrictRoute)
dry_run = APIRouter(tags=["jobs"], route_class=StrictRoute)

RETRY_SECONDS = "2"
VALIDATE_SECONDS = 30
EXAMPLES: list[Any] = [
    {"teacher": "tch_0190f3b2c4d57e6f8a9b0c1d2e3f4a5b", "student": {"network": "lenet5_half"}},
    {
        "name": "half-lenet",
        "teacher": "tch_0190f3b2c4d57e6f8a9b0c1d2e3f4a5b",
        "student": {"network": "lenet5_half"},
        "dataset": "dts_0190f3b2c4d57e6f8a9b0c1d2e3f4a5b",
        "objectives": [{"name": "cross_entropy", "weight": 0.1}, {"name": "kd", "weight": 0.9, "temperature": 4}],
        "training": {"epochs": 30},
    },
]
Spec = Annotated[JobSpec, Body(examples=EXAMPLES)]


@router.post(
    "",
    summary="Submit a job",
    operation_id="submit_job",
    status_code=202,
    response_model=JobBody,
    responses=problems(400, 409, 413, 415, 422, 429),
)
async def submit(key: JobsWrite, spec: Spec, promised: IdempotencyKey, request: Request, response: Response) -> JobBody:
    """Queue a distillation. What can be known to be wrong is a 422 at once; networks are built and checked seconds
    later. With an `Idempotency-Key`, the same key and body give the same job, however often they are sent."""
    asked = await request.json()
    made = submission.promise(promised, asked)
    return _accepted(response, *await run_in_threadpool(submission.submit, key, spec, asked, made))


@dry_run.post(
    "/jobs:validate",
    summary="Check a spec without making a job",
    operation_id="validate_job",
    response_model=Validated,
    responses=problems(400, 413, 415, 422),
)
async def validate(key: JobsWrite, watch: CurrentWatch, spec: Spec, wish: Wish, response: Response) -> Validated:
    """The spec with every default written out, or all that is wrong with it. An inspect worker builds the networks,
    which takes seconds; `checked` says how far that came. Waits 30 seconds at most, or as `Prefer: wait=N` says."""
    applied(response, wish or 0)
    return await validation.validate(watch, key, spec, VALIDATE_SECONDS if wish is None else wish)


@router.get(
    "", summary="List jobs", operation_id="list_jobs", response_model=Page[JobSummary], responses=problems(400, 422)
)
def list_jobs(
    key: JobsRead,
    window: CurrentWindow,
    status: Annotated[list[JobStatus] | None, Query(description="Only those in this state; may be repeated.")] = None,
) -> Page[JobSummary]:
    """The newest first."""
    return service.page(key, window, status or [])


@router.get(
    "/{identifier}",
    summary="Show a job",
    operation_id="get_job",
    response_model=JobBody,
    responses=problems(404, 422) | NOT_MODIFIED,
)
async def show(
    key: JobsRead,
    watch: CurrentWatch,
    identifier: Identifier,
    wait: Wait,
    response: Response,
    if_none_match: IfNoneMatch = None,
) -> Any:
    """With `Prefer: wait=N`, as soon as it differs from what `If-None-Match` names (or from now), or has ended."""
    job = await fresh(watch, key, identifier, wait, if_none_match)
    applied(response, wait)
    if not job.status.final:
        response.headers["Retry-After"] = RETRY_SECONDS
    return conditional(response, job, tag_of(job), if_none_match)


@router.post(
    "/{identifier}/cancel",
    summary="Cancel a job",
    operation_id="cancel_job",
    status_code=202,
    response_model=JobBody,
    responses=problems(404, 409, 422),
)
def cancel(key: JobsWrite, identifier: Identifier) -> JobBody:
    """A queued job is cancelled at once, a running one within seconds. Asking again changes nothing."""
    return service.cancel(key, identifier)


@router.post(
    "/{identifier}/retry",
    summary="Repeat a job",
    operation_id="retry_job",
    status_code=202,
    response_model=JobBody,
    responses=problems(400, 404, 409, 422, 429),
)
async def retry(key: JobsWrite, identifier: Identifier, promised: IdempotencyKey, response: Response) -> JobBody:
    """A new job with the spec of one that has ended; what is final stays final."""
    made = submission.promise(promised, {"retry_of": identifier})
    return _accepted(response, *await run_in_threadpool(submission.retry, key, identifier, made))


@router.delete(
    "/{identifier}",
    summary="Delete a job and what it made",
    operation_id="delete_job",
    status_code=204,
    responses=problems(404, 409, 422),
)
def delete(key: JobsWrite, identifier: Identifier) -> None:
    """Only a job that has ended can be deleted."""
    service.remove(key, identifier)


def _accepted(response: Response, job: JobBody, replayed: bool) -> JobBody:
    response.headers["Location"] = job.links["self"]
    response.headers["Retry-After"] = RETRY_SECONDS
    if replayed:
        response.headers["Idempotency-Replayed"] = "true"
    return job
