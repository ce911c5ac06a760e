"""`/operator`: health, queues, failures and storage."""

from typing import Any

from fastapi import APIRouter, Request, Response
from prometheus_client import REGISTRY
from sqlalchemy import or_, select
from sqlalchemy.orm import Session
from sqlalchemy.sql.functions import count

from api.dashboard.rendering import render
from api.dashboard.visitors import CurrentVisitor, PageRoute, require
from api.health.routes import ready
from api.http.errors import Unavailable
from api.http.paging import Window
from api.keys import service
from models.database import reading
from models.records import MlflowRun
from models.scheduling.key_usage import used_bytes

router = APIRouter(route_class=PageRoute, include_in_schema=False)
FAMILIES = {
    "jobs": "distillery_jobs",
    "depths": "distillery_queue_depth",
    "ages": "distillery_queue_oldest_seconds",
    "failures": "distillery_failures_last_hour",
    "attempts": "distillery_attempts_last_hour",
}
MOST_KEYS = 100


def _values() -> dict[str, Any]:
    """What the page shows: the same numbers as `/metrics` and `/health/ready`."""
    samples: dict[str, list[tuple[dict[str, str], float]]] = {name: [] for name in FAMILIES}
    by_family = {family: name for name, family in FAMILIES.items()}
    for family in REGISTRY.collect():
        if family.name in by_family:
            samples[by_family[family.name]] = [(dict(one.labels), one.value) for one in family.samples]
    try:
        health: Any = ready()
        problem, checks = "", health.checks
    except Unavailable as error:
        health, problem, checks = None, error.detail, error.extra.get("checks", {})
    keys = service.page(Window(MOST_KEYS, None)).data
    with reading() as session:
        storage = [(key, used_bytes(session, key.id)) for key in keys if key.revoked_at is None]
        mlflow = _mlflow(session)
    storage.sort(key=lambda pair: -pair[1])
    return {
        "samples": samples,
        "health": health,
        "checks": checks,
        "problem": problem,
        "storage": storage,
        "mlflow": mlflow,
    }


def _mlflow(session: Session) -> dict[str, Any] | None:
    """How many runs of MLflow are behind or given up, and the newest error; None if there are none."""
    failing = or_(MlflowRun.failures > 0, MlflowRun.status == "failed")
    counts = dict(session.execute(select(MlflowRun.status, count()).where(failing).group_by(MlflowRun.status)).all())
    if not counts:
        return None
    newest = select(MlflowRun.error).where(failing).order_by(MlflowRun.job_id.desc()).limit(1)
    return {"behind": counts.get("pending", 0), "failed": counts.get("failed", 0), "error": session.scalar(newest)}


@router.get("/operator")
async def show(request: Request, visitor: CurrentVisitor) -> Response:
    """The page, shared by all who look at it."""
    require(visitor, "admin")
    values = await request.app.state.pages.read("operator", _values)
    return render(request, "operator.html", **values)
