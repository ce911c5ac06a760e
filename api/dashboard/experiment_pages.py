"""`/experiments`: the list, and the table of one."""

from typing import Annotated, Any, Literal

from fastapi import APIRouter, Path, Query, Request, Response
from fastapi.responses import RedirectResponse
from starlette.concurrency import run_in_threadpool

from api.dashboard.rendering import HEADERS, render
from api.dashboard.scatter import Point, bars
from api.dashboard.visitors import CurrentVisitor, PageRoute, Visitor, require
from api.experiments import service
from api.experiments.table import as_csv, table
from api.http.paging import Window

router = APIRouter(prefix="/experiments", route_class=PageRoute, include_in_schema=False)
Identifier = Annotated[str, Path(pattern=r"^exp_[0-9a-f]{32}$")]
Text = Annotated[str, Query(max_length=255, pattern=r"^[^\x00]*$")]


@router.get("")
async def show_all(request: Request, visitor: CurrentVisitor, cursor: Text = "") -> Response:
    """All experiments of the key."""
    require(visitor, "jobs:read")
    page = await run_in_threadpool(service.page, visitor.key_id, Window(50, cursor or None))
    return render(request, "experiments.html", experiments=page.data, next_cursor=page.next_cursor)


def _values(visitor: Visitor, identifier: str, metric: str, baseline: str, best: str) -> dict[str, Any]:
    experiment, _ = service.get(visitor.key_id, identifier)
    direction: Literal["highest", "lowest"] | None = best if best in ("highest", "lowest") else None  # type: ignore[assignment]
    found = table(visitor.key_id, identifier, metric or None, baseline or None, direction)
    points = [Point(row.variant, row.mean, row.spread or 0.0) for row in found.rows if row.mean is not None]
    jobs = {variant.name: variant.jobs for variant in experiment.variants}
    return {"experiment": experiment, "table": found, "chart": bars(points, found.metric or ""), "jobs": jobs}


@router.get("/{identifier}")
async def show(
    request: Request,
    visitor: CurrentVisitor,
    identifier: Identifier,
    metric: Text = "",
    baseline: Text = "",
    best: Text = "",
) -> Response:
    """One experiment with its table."""
    require(visitor, "jobs:read")
    values = await run_in_threadpool(_values, visitor, identifier, metric, baseline, best)
    return render(request, "experiment.html", **values)


@router.get("/{identifier}/table.csv")
async def download(visitor: CurrentVisitor, identifier: Identifier, metric: Text = "", baseline: Text = "") -> Response:
    """The table as CSV."""
    require(visitor, "jobs:read")
    found = await run_in_threadpool(table, visitor.key_id, identifier, metric or None, baseline or None, None)
    headers = HEADERS | {"Content-Disposition": f'attachment; filename="{identifier}.csv"'}
    return Response(as_csv(found), media_type="text/csv; charset=utf-8", headers=headers)


@router.post("/{identifier}/cancel")
def cancel(visitor: CurrentVisitor, identifier: Identifier) -> Response:
    """Cancel all jobs that have not ended."""
    require(visitor, "jobs:write")
    service.cancel(visitor.key_id, identifier)
    return RedirectResponse(f"/experiments/{identifier}", 303, HEADERS)


@router.post("/{identifier}/delete")
def delete(visitor: CurrentVisitor, identifier: Identifier) -> Response:
    """Delete an experiment whose jobs have ended."""
    require(visitor, "jobs:write")
    service.remove(visitor.key_id, identifier)
    return RedirectResponse("/experiments", 303, HEADERS)
