"""Is the service alive, is it ready, and what are its figures."""

from concurrent.futures import ThreadPoolExecutor, wait
from datetime import datetime
from typing import Any

import structlog
from fastapi import APIRouter, Request, Response
from kombu.exceptions import KombuError, OperationalError
from prometheus_client import CONTENT_TYPE_LATEST, REGISTRY, generate_latest
from pydantic import Field
from sqlalchemy import select
from sqlalchemy.exc import SQLAlchemyError

from api.health import metrics  # noqa: F401 - registers what is counted in the database
from api.health.workers import recent
from api.http.bodies import Shown
from api.http.errors import Unavailable
from api.http.problem_documents import problems
from models.database import reading
from models.queue import wake_up
from models.records import Worker
from models.storage.errors import StorageError
from models.storage.opening import storage

router = APIRouter(tags=["health"])
BROKER_SECONDS = 3
PROBE_SECONDS = 5
"""A part that has said nothing for so long does not answer."""
FIGURES = 'distillery_jobs{status="queued"} 3.0\n'
log = structlog.get_logger("api")


class Alive(Shown):
    """The process answers."""

    status: str = "alive"


class WorkerBody(Shown):
    """A worker that was seen within its lease."""

    id: str
    kind: str = Field(description="`distill` or `inspect`.")
    host: str
    about: dict[str, Any] | None = Field(
        description="What it runs on; `sandbox` says what confines its engines: `filesystem` is `landlock-VERSION` or `open`,"
        " `network` is `none` or `shared`, `memory` is `hidden` or `open`, `signals` are `scoped` or `open`, and `why` says"
        " what is missing."
    )
    busy: bool
    seen_at: datetime


class Ready(Shown):
    """Database, storage and broker answer."""

    status: str = "ready"
    checks: dict[str, str] = Field(description="`ok` for each part.")
    workers: list[WorkerBody]
    warnings: list[str] = Field(description="What an operator should know: workers whose engines nothing confines.")


@router.get("/health/live", summary="Is the process alive", operation_id="live", response_model=Alive)
def live() -> Alive:
    """It answers, so it is."""
    return Alive()


@router.get(
    "/health/ready",
    summary="Is the service ready",
    operation_id="ready",
    response_model=Ready,
    responses={status: body for status, body in problems().items() if status == 503},
)
def ready() -> Ready:
    """Database, storage and broker answer; with the workers that were seen. 503 says which of them does not."""
    probes = {"database": _database, "storage": _storage, "broker": _broker}
    pool = ThreadPoolExecutor(len(probes))
    asked = {name: pool.submit(probe) for name, probe in probes.items()}
    wait(asked.values(), PROBE_SECONDS)
    checks = {name: one.result() if one.done() else "does not answer" for name, one in asked.items()}
    pool.shutdown(wait=False, cancel_futures=True)
    failed = [name for name, answer in checks.items() if answer != "ok"]
    if failed:
        detail = f"{' and '.join(failed)} {'do' if len(failed) > 1 else 'does'} not answer."
        raise Unavailable(detail, headers={"Retry-After": "5"}, extra={"checks": checks})
    workers = _workers()
    return Ready(checks=checks, workers=workers, warnings=[*filter(None, map(_unconfined, workers))])


@router.get(
    "/metrics",
    summary="Figures for Prometheus",
    operation_id="prometheus",
    response_class=Response,
    responses={200: {"description": "Prometheus's text format.", "content": {"text/plain": {"example": FIGURES}}}},
)
def prometheus(request: Request) -> Response:
    """Requests and their duration, event streams, jobs by status, queues, workers, and what failed within an hour."""
    return Response(generate_latest(REGISTRY), media_type=CONTENT_TYPE_LATEST)


def _database() -> str:
    try:
        with reading() as session:
            session.scalar(select(1))
    except SQLAlchemyError as error:
        return _failed("database", error)
    return "ok"


def _storage() -> str:
    try:
        storage().size("health/probe")
    except StorageError as error:
        return _failed("storage", error)
    return "ok"


def _broker() -> str:
    try:
        with wake_up.app().connection_for_write() as connection:
            connection.ensure_connection(max_retries=1, interval_start=0, interval_step=0, timeout=BROKER_SECONDS)
    except (KombuError, OperationalError, OSError) as error:
        return _failed("broker", error)
    return "ok"


def _failed(part: str, error: Exception) -> str:
    # the error itself may name hosts and users, so it is for the log
    log.warning("part_does_not_answer", part=part, error=str(error))
    return "does not answer"


def _unconfined(worker: WorkerBody) -> str | None:
    """What to say of a worker whose engines can reach the files of others, or a network."""
    sandbox = (worker.about or {}).get("sandbox")
    if not isinstance(sandbox, dict):
        sandbox = {}
    why = "; ".join(sandbox.get("why") or [])
    if sandbox.get("filesystem", "open") != "open" and sandbox.get("network", "shared") != "shared":
        return f"the sandbox of the {worker.kind} worker on {worker.host} has a flaw: {why}" if why else None
    why = why or "nothing is known of it"
    return f"no sandbox confines the engines of the {worker.kind} worker on {worker.host}: {why}"


def _workers() -> list[WorkerBody]:
    with reading() as session:
        rows = session.scalars(select(Worker).where(*recent()).order_by(Worker.kind, Worker.id)).all()
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
