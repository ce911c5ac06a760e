"""`/experiments`."""

import time
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Body, Query, Request, Response
from starlette.concurrency import run_in_threadpool

from api.dependencies import CurrentWatch, CurrentWindow, IdempotencyKey, Identifier, JobsRead, JobsWrite, Wait
from api.experiments import service
from api.experiments import table as tables
from api.experiments.schemas import (
    TEACHER,
    ExperimentBody,
    ExperimentSpec,
    ExperimentSummary,
    TableBody,
)
from api.http.bodies import StrictRoute
from api.http.conditional import NOT_MODIFIED, IfNoneMatch, conditional, confirm_wait, matches, tag_of
from api.http.paging import Page
from api.http.problem_documents import problems
from api.http.row_watch import RowWatch
from api.jobs import service as jobs_service
from api.jobs.idempotency import idempotent_request
from api.jobs.schemas import JobSummary
from models.records import Experiment
from models.status import JobStatus

router = APIRouter(prefix="/experiments", tags=["experiments"], route_class=StrictRoute)
BASE: dict[str, Any] = {"teacher": TEACHER, "student": {"network": "lenet5_half"}}
LOSSES: dict[str, Any] = {
    "KD": [{"name": "cross_entropy", "weight": 0.1}, {"name": "kd", "weight": 0.9, "temperature": 4}],
    "DKD": [{"name": "cross_entropy", "weight": 1}, {"name": "dkd", "weight": 1}],
}
EXAMPLES: list[Any] = [
    {"name": "which loss", "base": BASE, "grid": {"objectives": LOSSES, "training.seed": [0, 1, 2]}},
    {
        "name": "short and long",
        "base": BASE,
        "variants": [
            {"name": "short", "changes": {"training.epochs": 10}},
            {"name": "long", "changes": {"training.epochs": 60}},
        ],
    },
]
Variant = Annotated[str | None, Query(max_length=255, pattern=r"^[^\x00]*$", description="Variant from which differences are taken; by default the first.")]  # fmt: skip
Metric = Annotated[str | None, Query(max_length=128, pattern=r"^[^\x00]*$", description="Metric to compare; by default the task's main metric.")]  # fmt: skip
Best = Annotated[
    Literal["highest", "lowest"] | None,
    Query(description="Which mean is the best. By default the lowest of losses, sizes and times, else the highest."),
]
TABLE: dict[int | str, dict[str, Any]] = {
    200: {
        "description": "The table.",
        "content": {
            "application/json": {},
            "text/csv": {"schema": {"type": "string"}, "example": "metric,variant,n,mean\r\naccuracy,KD,3,0.97\r\n"},
            "text/markdown": {"schema": {"type": "string"}, "example": "| variant | accuracy |\n|---|---|\n"},
        },
    }
}


@router.post(
    "",
    summary="Submit an experiment",
    operation_id="submit_experiment",
    status_code=202,
    response_model=ExperimentBody,
    responses=problems(400, 409, 413, 415, 422, 429),
)
async def submit(
    key: JobsWrite,
    spec: Annotated[ExperimentSpec, Body(examples=EXAMPLES)],
    idempotency_key: IdempotencyKey,
    request: Request,
    response: Response,
) -> ExperimentBody:
    """Queue one job for every variant and every combination of the grid, at most 200. All specs are validated before anything
    is queued: a 422 lists the problems of all of them. Repeated requests with the same `Idempotency-Key` and body return the
    same experiment."""
    body = await request.json()
    idempotent = idempotent_request(idempotency_key, {"experiment": body})
    made = await run_in_threadpool(service.submit, key, spec, body, idempotent)
    response.headers["Location"] = made.links["self"]
    return made


@router.get(
    "",
    summary="List experiments",
    operation_id="list_experiments",
    response_model=Page[ExperimentSummary],
    responses=problems(400, 422),
)
def list_experiments(key: JobsRead, window: CurrentWindow) -> Page[ExperimentSummary]:
    """Newest first."""
    return service.page(key, window)


@router.get(
    "/{identifier}",
    summary="Show an experiment",
    operation_id="get_experiment",
    response_model=ExperimentBody,
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
    """With `Prefer: wait=N`, the response is delayed until all jobs have ended, or the experiment differs from the `ETag` in
    `If-None-Match` (without that header: from its current state), or N seconds have passed."""
    found = await _changed(watch, key, identifier, wait, if_none_match)
    confirm_wait(response, wait)
    return conditional(response, found, tag_of(found), if_none_match)


async def _changed(watch: RowWatch, key: str, identifier: str, wait: int, header: str | None) -> ExperimentBody:
    deadline, known = time.monotonic() + wait, header
    while True:
        body, token = await run_in_threadpool(service.get, key, identifier)
        known = known or tag_of(body)
        left = deadline - time.monotonic()
        if body.status == "ended" or not matches(known, tag_of(body)) or left <= 0 or watch.closing:
            return body
        await watch.changed(Experiment, identifier, token, left)


@router.get(
    "/{identifier}/jobs",
    summary="List the jobs of an experiment",
    operation_id="list_experiment_jobs",
    response_model=Page[JobSummary],
    responses=problems(400, 404, 422),
)
def list_jobs(
    key: JobsRead,
    identifier: Identifier,
    window: CurrentWindow,
    status: Annotated[list[JobStatus] | None, Query(description="Only jobs with this status. May be repeated.")] = None,
) -> Page[JobSummary]:
    """Newest first."""
    service.get(key, identifier)
    return jobs_service.page(key, window, status or [], identifier)


@router.get(
    "/{identifier}/table",
    summary="Compare the variants of an experiment",
    operation_id="get_experiment_table",
    response_model=TableBody,
    responses=problems(404, 422) | TABLE,
)
def show_table(
    key: JobsRead,
    identifier: Identifier,
    metric: Metric = None,
    baseline: Variant = None,
    best: Best = None,
    format: Annotated[Literal["json", "csv", "markdown"], Query(description="Format of the table.")] = "json",
) -> Any:
    """Mean, standard deviation and number of jobs of each variant, and its difference from the baseline, paired by seed, with
    a 95 % interval (Student's t), of the metric that is asked for."""
    body = tables.table(key, identifier, metric, baseline, best)
    if format == "json":
        return body
    text, kind = (tables.as_csv(body), "csv") if format == "csv" else (tables.as_markdown(body), "markdown")
    return Response(text, media_type=f"text/{kind}; charset=utf-8")


@router.post(
    "/{identifier}/cancel",
    summary="Cancel an experiment",
    operation_id="cancel_experiment",
    status_code=202,
    response_model=ExperimentBody,
    responses=problems(404, 409, 422),
)
def cancel(key: JobsWrite, identifier: Identifier) -> ExperimentBody:
    """Cancels all of its jobs that have not ended. Repeated requests change nothing."""
    return service.cancel(key, identifier)


@router.delete(
    "/{identifier}",
    summary="Delete an experiment, its jobs and their outputs",
    operation_id="delete_experiment",
    status_code=204,
    responses=problems(404, 409, 422),
)
def delete(key: JobsWrite, identifier: Identifier) -> None:
    """All of its jobs must have ended."""
    service.remove(key, identifier)
