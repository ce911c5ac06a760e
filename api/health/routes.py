"""`/health/live`, `/health/ready` and `/metrics`."""

import shutil
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor, wait
from datetime import datetime
from pathlib import Path
from typing import Any

import structlog
from fastapi import APIRouter, Request, Response
from kombu.exceptions import KombuError, OperationalError
from prometheus_client import CONTENT_TYPE_LATEST, REGISTRY, generate_latest
from pydantic import Field
from sqlalchemy import make_url, select
from sqlalchemy.exc import SQLAlchemyError

from api.health import metrics  # noqa: F401 - registers the metrics of the database
from api.health.workers import is_recent
from api.http.bodies import ResponseBody
from api.http.errors import Unavailable
from api.http.problem_documents import problems
from models.database import reading
from models.queue import wake_up
from models.records import Worker
from models.settings import settings
from models.storage.errors import StorageError
from models.storage.opening import storage

router = APIRouter(tags=["health"])
BROKER_SECONDS = 3
PROBE_SECONDS = 5
"""Time after which a part counts as not answering."""
AWAY = "does not answer"
MOST_SECONDS_OFF = 300
"""Difference between the clocks of a worker and of the database from which on a warning is shown."""
LEAST_FREE_BYTES = 32 * 2**20
"""A disk with less free space counts as full."""
METRICS_EXAMPLE = 'distillery_jobs{status="queued"} 3.0\n'
log = structlog.get_logger("api")


class Alive(ResponseBody):
    """The process responds."""

    status: str = "alive"


class WorkerBody(ResponseBody):
    """A worker seen within the lease time."""

    id: str
    kind: str = Field(description="`distill` or `inspect`.")
    host: str
    about: dict[str, Any] | None = Field(
        description="Hardware and software of the worker. `sandbox` describes the confinement of its engines: `filesystem`"
        " is `landlock-VERSION` or `open`, `network` is `none` or `shared`, `memory` is `hidden` or `open`, `signals` are"
        " `scoped` or `open`, and `why` lists why a part is not confined. `takes` is what it claims: an inspect worker has a"
        " row for each of its slots. `memory_limit` is what limits the memory of a distill worker's jobs: `cgroup`, `process`,"
        " `container` or `none`. `free_bytes` is the free space on its disk; below `least_free_bytes` it claims nothing."
    )
    busy: bool
    seen_at: datetime


class Ready(ResponseBody):
    """Database, storage and broker respond."""

    status: str = "ready"
    checks: dict[str, str] = Field(description="`ok` for each part.")
    workers: list[WorkerBody]
    warnings: list[str] = Field(
        description="Warnings for the operator: workers whose engines are not fully confined, whose disk is full, or whose jobs"
        " have no limit of memory."
    )


@router.get("/health/live", summary="Check whether the process is alive", operation_id="live", response_model=Alive)
def live() -> Alive:
    """Always succeeds while the process runs."""
    return Alive()


@router.get(
    "/health/ready",
    summary="Check whether the service is ready",
    operation_id="ready",
    response_model=Ready,
    responses={status: body for status, body in problems().items() if status == 503},
)
def ready() -> Ready:
    """Checks database, storage and broker, and lists the running workers. If a part does not answer or its disk is full, 503
    names it."""
    probes = {"database": _database, "storage": _storage, "broker": _broker}
    pool = ThreadPoolExecutor(len(probes))
    running = {name: pool.submit(probe) for name, probe in probes.items()}
    wait(running.values(), PROBE_SECONDS)
    checks = {name: one.result() if one.done() else AWAY for name, one in running.items()}
    pool.shutdown(wait=False, cancel_futures=True)
    failed = {name: result for name, result in checks.items() if result != "ok"}
    if failed:
        detail = " ".join(f"The {name} {result}." for name, result in failed.items())
        raise Unavailable(detail, headers={"Retry-After": "5"}, extra={"checks": checks})
    workers = workers_now()
    return Ready(checks=checks, workers=workers, warnings=_warnings(workers))


@router.get(
    "/metrics",
    summary="Metrics for Prometheus",
    operation_id="prometheus",
    response_class=Response,
    responses={
        200: {"description": "Prometheus's text format.", "content": {"text/plain": {"example": METRICS_EXAMPLE}}}
    },
)
def prometheus(request: Request) -> Response:
    """Requests and their duration, event streams, jobs by status, queues, workers, and failures of the last hour."""
    return Response(generate_latest(REGISTRY), media_type=CONTENT_TYPE_LATEST)


def _database() -> str:
    try:
        with reading() as session:
            session.scalar(select(1))
    except SQLAlchemyError as error:
        return _failed("database", error)
    url = make_url(settings().database)
    return _room(Path(url.database or ".").parent) if url.get_backend_name() == "sqlite" else "ok"


def _storage() -> str:
    try:
        storage().size("health/probe")
    except StorageError as error:
        return _failed("storage", error)
    folder = storage().folder
    return "ok" if folder is None else _room(folder)


def _broker() -> str:
    try:
        with wake_up.app().connection_for_write() as connection:
            connection.ensure_connection(max_retries=1, interval_start=0, interval_step=0, timeout=BROKER_SECONDS)
    except (KombuError, OperationalError, OSError) as error:
        return _failed("broker", error)
    return "ok"


def _failed(part: str, error: Exception) -> str:
    # the error message may name hosts and users, so it goes to the log only
    log.warning("health_check_failed", part=part, error=str(error))
    return AWAY


def _room(folder: Path) -> str:
    """Whether files can be written to a folder. Of a server, only the errors of writes tell."""
    return "ok" if shutil.disk_usage(folder).free >= LEAST_FREE_BYTES else "is full"


def _warnings(workers: Sequence[WorkerBody]) -> list[str]:
    kinds = _unconfined, _without_space, _without_limit, _with_wrong_clock
    found = (warning_of(worker) for worker in workers for warning_of in kinds)
    return list(dict.fromkeys(filter(None, found)))  # once for all slots of a worker


def _without_space(worker: WorkerBody) -> str | None:
    """A warning if a worker claims nothing because its disk is full; None otherwise."""
    about = worker.about or {}
    free, least = about.get("free_bytes"), about.get("least_free_bytes")
    if not isinstance(free, int) or not isinstance(least, int) or free >= least:
        return None
    return (
        f"the {worker.kind} worker on {worker.host} claims nothing: its disk has {free} bytes free, fewer than {least};"
        " free some space"
    )


def _without_limit(worker: WorkerBody) -> str | None:
    """A warning if nothing limits the memory of a worker's jobs; None otherwise."""
    if (worker.about or {}).get("memory_limit") != "none":
        return None
    return (
        f"nothing limits the memory of jobs of the {worker.kind} worker on {worker.host}: set DISTILL_ENGINE_CGROUP, or limit"
        " its container (docs/operations.md)"
    )


def _with_wrong_clock(worker: WorkerBody) -> str | None:
    """A warning if a worker's time of day is far off the database's; None otherwise."""
    off = (worker.about or {}).get("clock_seconds_off")
    if not isinstance(off, int) or abs(off) <= MOST_SECONDS_OFF:
        return None
    return (
        f"the clock of the {worker.kind} worker on {worker.host} is {off:+d} s off the database's; if the storage is a"
        " bucket, the worker claims nothing: set the clock"
    )


def _unconfined(worker: WorkerBody) -> str | None:
    """A warning if the engines of a worker are not fully confined; None otherwise."""
    sandbox = (worker.about or {}).get("sandbox")
    if not isinstance(sandbox, dict):
        sandbox = {}
    why = "; ".join(sandbox.get("why") or [])
    if sandbox.get("filesystem", "open") != "open" and sandbox.get("network", "shared") != "shared":
        return f"the sandbox of the {worker.kind} worker on {worker.host} is incomplete: {why}" if why else None
    why = why or "the worker reports no reason"
    return f"the engines of the {worker.kind} worker on {worker.host} run without a sandbox: {why}"


def workers_now() -> list[WorkerBody]:
    """The running workers."""
    with reading() as session:
        rows = session.scalars(select(Worker).where(*is_recent()).order_by(Worker.kind, Worker.id)).all()
    return [
        WorkerBody(
            id=row.id,
            kind=row.kind,
            host=row.host,
            about=row.about,
            busy=row.busy_with is not None,
            seen_at=row.seen_at,
        )
        for row in rows
    ]
