"""`/compare`: jobs side by side."""

import csv
import io
import json
from typing import Annotated, Any
from urllib.parse import urlencode

from fastapi import APIRouter, Query, Request, Response
from starlette.concurrency import run_in_threadpool

from api.dashboard.rendering import HEADERS, render
from api.dashboard.scatter import Mark, scatter
from api.dashboard.visitors import CurrentVisitor, PageRoute, Visitor, require
from api.experiments.statistics import mean, spread
from api.experiments.table import text_cell
from api.jobs import service
from api.jobs.schemas import JobBody
from api.jobs.summaries import measured, summaries
from models.database import reading

router = APIRouter(prefix="/compare", route_class=PageRoute, include_in_schema=False)
MOST_JOBS = 20
COLUMNS = ("bytes", "parameters", "multiply_adds", "latency_milliseconds", "seconds", "agreement")
Chosen = Annotated[list[str] | None, Query(max_length=200)]
IGNORED = ("/name", "/labels", "/reasons", "/student/budget/chosen")
"""Fields of a resolved spec that say nothing about what was done."""
SEED = "/training/seed"


def _gathered(visitor: Visitor, ids: list[str]) -> dict[str, Any]:
    chosen = list(dict.fromkeys(ids))[:MOST_JOBS]
    with reading() as session:
        jobs = [service.job_body(session, service.find(session, visitor.key_id, one)) for one in chosen]
        values = measured(session, chosen)
        known = summaries(session, chosen)
    main = next((one["main_metric"]["name"] for one in known.values() if one.get("main_metric")), "agreement")
    groups = grouped(jobs, values, main)
    marks = {
        cost: scatter(_marks(jobs, values, cost, main), cost.replace("_", " "), main)
        for cost in ("bytes", "latency_milliseconds")
    }
    return {
        "query": urlencode([("job", job.id) for job in jobs]), "jobs": jobs, "values": values, "main": main, "columns": [main, *(one for one in COLUMNS if one != main)],
        "differences": differences(jobs), "groups": groups, "scatters": {name: one for name, one in marks.items() if one},
    }  # fmt: skip


def _marks(jobs: list[JobBody], values: dict[str, dict[str, float]], cost: str, quality: str) -> list[Mark]:
    return [
        Mark(job.name, f"/jobs/{job.id}", values[job.id][cost], values[job.id][quality])
        for job in jobs
        if cost in values[job.id] and quality in values[job.id]
    ]


def flat(value: Any, at: str = "") -> dict[str, Any]:
    """The fields of a spec by JSON pointer; empty lists and objects are values."""
    if isinstance(value, dict) and value:
        return {place: one for name, each in value.items() for place, one in flat(each, f"{at}/{name}").items()}
    if isinstance(value, list) and value:
        return {place: one for number, each in enumerate(value) for place, one in flat(each, f"{at}/{number}").items()}
    return {at: value}


def differences(jobs: list[JobBody]) -> list[tuple[str, list[str]]]:
    """The fields in which resolved specs differ, with the value of each job as JSON; empty where a job lacks it."""
    specs = [flat(job.resolved) for job in jobs]
    places = sorted({place for spec in specs for place in spec if not place.startswith(IGNORED)})
    rows = [
        (place, [json.dumps(spec[place], ensure_ascii=False) if place in spec else "" for spec in specs])
        for place in places
    ]
    return [(place, cells) for place, cells in rows if len(set(cells)) > 1]


def grouped(jobs: list[JobBody], values: dict[str, dict[str, float]], metric: str) -> list[dict[str, Any]]:
    """Jobs whose specs differ in their seed alone, with mean and spread of a metric."""
    found: dict[str, list[JobBody]] = {}
    for job in jobs:
        spec = {
            place: one for place, one in flat(job.resolved).items() if place != SEED and not place.startswith(IGNORED)
        }
        found.setdefault(json.dumps(spec, sort_keys=True), []).append(job)
    groups = []
    for members in found.values():
        numbers = [values[job.id][metric] for job in members if metric in values[job.id]]
        name = members[0].variant or members[0].name
        groups.append(
            {"name": name, "jobs": len(members), "n": len(numbers), "mean": mean(numbers), "spread": spread(numbers)}
        )
    return groups


@router.get("")
async def show(request: Request, visitor: CurrentVisitor, job: Chosen = None) -> Response:
    """The chosen jobs side by side."""
    require(visitor, "jobs:read")
    values = await run_in_threadpool(_gathered, visitor, job or [])
    return render(request, "compare.html", most=MOST_JOBS, **values)


@router.get("/table.csv")
async def download(visitor: CurrentVisitor, job: Chosen = None) -> Response:
    """The table as CSV."""
    require(visitor, "jobs:read")
    found = await run_in_threadpool(_gathered, visitor, job or [])
    written = io.StringIO()
    writer = csv.writer(written, lineterminator="\r\n")
    writer.writerow(["id", "name", "status", *found["columns"]])
    for each in found["jobs"]:
        known = found["values"][each.id]
        cells = [repr(known[name]) if name in known else "" for name in found["columns"]]
        writer.writerow([each.id, text_cell(each.name), each.status, *cells])
    headers = HEADERS | {"Content-Disposition": 'attachment; filename="jobs.csv"'}
    return Response(written.getvalue(), media_type="text/csv; charset=utf-8", headers=headers)
