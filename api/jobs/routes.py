"""`/jobs`."""

from typing import Annotated, Any

from fastapi import APIRouter, Body, Header, Query, Request, Response

from api.dependencies import (
    CurrentWatch,
    CurrentWindow,
    IdempotencyKey,
    Identifier,
    JobsRead,
    JobsWrite,
    RequestedWait,
    Wait,
)
from api.http.bodies import StrictRoute
from api.http.conditional import NOT_MODIFIED, IfNoneMatch, confirm_wait
from api.http.paging import Page
from api.http.problem_documents import problems
from api.jobs import service, shared_lists, submission, validation
from api.jobs.answer import RETRY_SECONDS, answer
from api.jobs.idempotency import idempotent_request
from api.jobs.long_poll import wait_for_change
from api.jobs.schemas import JobBody, JobSummary, Validated
from api.jobs.shared_lists import SharedLists, accepted_age
from models.spec.job_spec import JobSpec
from models.status import JobStatus

router = APIRouter(prefix="/jobs", tags=["jobs"], route_class=StrictRoute)
dry_run = APIRouter(tags=["jobs"], route_class=StrictRoute)

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
async def submit(
    key: JobsWrite, spec: Spec, idempotency_key: IdempotencyKey, request: Request, response: Response
) -> JobBody:
    """Queue a distillation. Values that are not valid are a 422 at once; an inspect worker builds and checks the networks
    seconds later. Repeated requests with the same `Idempotency-Key` and body return the same job."""
    body = await request.json()
    idempotent = idempotent_request(idempotency_key, body)
    return await _submitted(request, response, submission.Submission(key, idempotent, spec, body))


@dry_run.post(
    "/jobs:validate",
    summary="Validate a spec without creating a job",
    operation_id="validate_job",
    response_model=Validated,
    responses=problems(400, 413, 415, 422),
)
async def validate(
    key: JobsWrite, watch: CurrentWatch, spec: Spec, requested: RequestedWait, response: Response
) -> Validated:
    """The spec with every default written out, or a 422 with every problem. An inspect worker builds the networks, which
    takes seconds; `checked` lists what was checked. Waits at most 30 seconds, or N with `Prefer: wait=N`."""
    confirm_wait(response, requested or 0)
    return await validation.validate(watch, key, spec, VALIDATE_SECONDS if requested is None else requested)


@router.get(
    "", summary="List jobs", operation_id="list_jobs", response_model=Page[JobSummary], responses=problems(400, 422)
)
async def list_jobs(
    key: JobsRead,
    window: CurrentWindow,
    request: Request,
    status: Annotated[list[JobStatus] | None, Query(description="Only jobs with this status. May be repeated.")] = None,
    cache_control: Annotated[
        str | None,
        Header(
            description="`max-age=N` accepts a list that was read at most N seconds ago, at most"
            f" {shared_lists.MOST_SECONDS:g}; `Age` says when. Clients that poll the same list then share a read.",
            examples=["max-age=1"],
        ),
    ] = None,
) -> Response:
    """Newest first."""
    lists: SharedLists = request.app.state.lists
    listed = await lists.page(key, window, status or [], accepted_age(cache_control))
    headers = {"Age": str(int(listed.age)), "Cache-Control": "private, no-cache"}
    return Response(listed.body, media_type="application/json", headers=headers)


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
    request: Request,
    if_none_match: IfNoneMatch = None,
) -> Response:
    """With `Prefer: wait=N`, the response is delayed until the job has ended, or differs from the `ETag` in `If-None-Match`
    (without that header: from its current state), or N seconds have passed."""
    shown = await wait_for_change(request.app.state.reads, watch, key, identifier, wait, if_none_match)
    response = answer(shown)
    confirm_wait(response, wait)
    return response


@router.post(
    "/{identifier}/cancel",
    summary="Cancel a job",
    operation_id="cancel_job",
    status_code=202,
    response_model=JobBody,
    responses=problems(404, 409, 422),
)
def cancel(key: JobsWrite, identifier: Identifier, request: Request) -> JobBody:
    """A queued job is cancelled at once, a running one within seconds. Repeated requests change nothing."""
    try:
        return service.cancel(key, identifier)
    finally:
        _changed(request)


@router.post(
    "/{identifier}/retry",
    summary="Retry a job",
    operation_id="retry_job",
    status_code=202,
    response_model=JobBody,
    responses=problems(400, 404, 409, 422, 429),
)
async def retry(
    key: JobsWrite, identifier: Identifier, idempotency_key: IdempotencyKey, request: Request, response: Response
) -> JobBody:
    """Submit the spec of a job that has ended as a new job. The old job does not change."""
    idempotent = idempotent_request(idempotency_key, {"retry_of": identifier})
    return await _submitted(request, response, submission.Submission(key, idempotent, retry_of=identifier))


@router.delete(
    "/{identifier}",
    summary="Delete a job and its outputs",
    operation_id="delete_job",
    status_code=204,
    responses=problems(404, 409, 422),
)
def delete(key: JobsWrite, identifier: Identifier, request: Request) -> None:
    """The job must have ended, and no unfinished job may use its student as a teacher."""
    try:
        service.remove(key, identifier)
    finally:
        _changed(request)


def _changed(request: Request) -> None:
    """Show a change by this process at once, also to clients that share reads."""
    request.app.state.crowds.changed()
    request.app.state.lists.changed()


async def _submitted(request: Request, response: Response, submitted: submission.Submission) -> JobBody:
    submissions: submission.Submissions = request.app.state.submissions
    job, replayed = await submissions.submit(submitted)
    request.app.state.lists.changed()
    response.headers["Location"] = job.links["self"]
    response.headers["Retry-After"] = RETRY_SECONDS
    if replayed:
        response.headers["Idempotency-Replayed"] = "true"
    return job
