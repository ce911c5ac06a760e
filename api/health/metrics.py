"""Metrics for Prometheus: of this process directly, of the database by a few queries whose results are cached.

Workers have no port of their own. Their work is recorded in the database, and every API process exports it.
"""

import threading
import time
from collections.abc import Callable, Iterable, Sequence
from typing import Any, TypeAlias

import structlog
from prometheus_client import REGISTRY, Counter
from prometheus_client.core import GaugeMetricFamily
from prometheus_client.registry import Collector
from sqlalchemy import Engine, Select, event, func, select
from sqlalchemy.exc import InterfaceError, OperationalError
from sqlalchemy.exc import TimeoutError as PoolTimeout

from api.health.workers import is_recent
from models.database import now, reading
from models.queue.wake_up import KINDS
from models.records import Attempt, Inspection, Job, Worker
from models.status import InspectionStatus, JobStatus

CACHE_SECONDS = 10.0
"""How long query results are cached."""
FINAL_CACHE_SECONDS = 60.0
"""How long counts of ended jobs are cached; there may be a million of them."""
HOUR_SECONDS = 3600.0
FINAL = tuple(status for status in JobStatus if status.final)
UNFINISHED = tuple(status for status in JobStatus if not status.final)

QUERIES = Counter("distillery_database_queries", "SQL statements sent by this API process.")
Row = Sequence[Any]
Query: TypeAlias = Select[*tuple[Any, ...]]
log = structlog.get_logger("api")


@event.listens_for(Engine, "before_cursor_execute")
def _count(*_: Any) -> None:
    QUERIES.inc()


class CachedQuery:
    """The rows of a query, read again when they are older than `seconds`."""

    def __init__(self, make: Callable[[], Query], seconds: float):
        self._make = make
        self._seconds = seconds
        self._rows: Sequence[Row] = ()
        self._read_at = -seconds
        self._lock = threading.Lock()

    def rows(self) -> Sequence[Row]:
        """The cached rows, or new ones if the cache has expired."""
        with self._lock:
            if time.monotonic() - self._read_at >= self._seconds:
                with reading() as session:
                    self._rows = [tuple(row) for row in session.execute(self._make())]
                self._read_at = time.monotonic()
            return self._rows


def _jobs(statuses: Sequence[JobStatus]) -> Query:
    counted = select(Job.status, func.count()).where(Job.status.in_(statuses), Job.deleted_at.is_(None))
    return counted.group_by(Job.status)


def _waiting_jobs() -> Query:
    waiting = Job.status == JobStatus.QUEUED, Job.ready, Job.deleted_at.is_(None)
    return select(func.count(), now() - func.min(Job.created_at)).where(*waiting)


def _waiting_inspections() -> Query:
    waiting = Inspection.status == InspectionStatus.QUEUED
    return select(func.count(), now() - func.min(Inspection.created_at)).where(waiting)


def _workers() -> Query:
    busy = Worker.busy_with.is_not(None)
    return select(Worker.kind, busy, func.count()).where(*is_recent()).group_by(Worker.kind, busy)


def _free_bytes() -> Query:
    free = Worker.about["free_bytes"].as_float()
    return select(Worker.kind, Worker.host, func.min(free)).where(*is_recent()).group_by(Worker.kind, Worker.host)


def _attempts() -> Query:
    code = Attempt.error["code"].as_string()
    ended = select(Attempt.outcome, func.coalesce(code, ""), func.count())
    return ended.where(Attempt.ended_at > now() - HOUR_SECONDS).group_by(Attempt.outcome, code)


def _failures() -> Query:
    code, fault = Job.error["code"].as_string(), Job.error["fault"].as_string()
    failed = Job.status == JobStatus.FAILED, Job.finished_at > now() - HOUR_SECONDS
    counted = select(func.coalesce(code, ""), func.coalesce(fault, ""), func.count())
    return counted.where(*failed).group_by(code, fault)


def _inspections() -> Query:
    finished = Inspection.finished_at > now() - HOUR_SECONDS
    counted = select(Inspection.kind, Inspection.status, func.count())
    return counted.where(finished).group_by(Inspection.kind, Inspection.status)


class DatabaseCollector(Collector):
    """Metrics counted in the database at every scrape, through the caches."""

    def __init__(self) -> None:
        self._unfinished = CachedQuery(lambda: _jobs(UNFINISHED), CACHE_SECONDS)
        self._final = CachedQuery(lambda: _jobs(FINAL), FINAL_CACHE_SECONDS)
        self._queues = {
            "distill": CachedQuery(_waiting_jobs, CACHE_SECONDS),
            "inspect": CachedQuery(_waiting_inspections, CACHE_SECONDS),
        }
        self._workers = CachedQuery(_workers, CACHE_SECONDS)
        self._free_bytes = CachedQuery(_free_bytes, CACHE_SECONDS)
        self._attempts = CachedQuery(_attempts, CACHE_SECONDS)
        self._failures = CachedQuery(_failures, CACHE_SECONDS)
        self._inspections = CachedQuery(_inspections, CACHE_SECONDS)

    def describe(self) -> Iterable[GaugeMetricFamily]:
        return []  # otherwise the registry would query the database when it registers this collector

    def collect(self) -> Iterable[GaugeMetricFamily]:
        try:
            return [*self._current(), *self._last_hour()]
        except (OperationalError, InterfaceError, PoolTimeout) as error:
            # without the database, the metrics of the process are still exported
            log.warning("database_metrics_failed", error=type(error).__name__)
            return []

    def _current(self) -> Iterable[GaugeMetricFamily]:
        counts: dict[Any, int] = dict.fromkeys(JobStatus, 0) | {row[0]: row[1] for row in self._final.rows()}
        counts |= {row[0]: row[1] for row in self._unfinished.rows()}
        yield _family("distillery_jobs", "Jobs by status.", ["status"], [(str(name), n) for name, n in counts.items()])
        queues = [(kind, *query.rows()[0]) for kind, query in self._queues.items()]
        depths = [(kind, depth) for kind, depth, _ in queues]
        yield _family("distillery_queue_depth", "Jobs or inspections that wait for a worker.", ["kind"], depths)
        ages = [(kind, max(0.0, age or 0.0)) for kind, _, age in queues]
        about = "Age of the oldest job or inspection that waits for a worker."
        yield _family("distillery_queue_oldest_seconds", about, ["kind"], ages)
        known = {(kind, busy): 0 for kind in KINDS for busy in (False, True)}
        known |= {(row[0], bool(row[1])): row[2] for row in self._workers.rows()}
        states = [(kind, "busy" if busy else "idle", count) for (kind, busy), count in known.items()]
        yield _family("distillery_workers", "Slots of workers seen within the lease time.", ["kind", "state"], states)
        free = [row for row in self._free_bytes.rows() if row[2] is not None]
        about = "Free space on the disks of workers; below DISTILL_FREE_BYTES they claim nothing."
        yield _family("distillery_worker_free_bytes", about, ["kind", "host"], free)

    def _last_hour(self) -> Iterable[GaugeMetricFamily]:
        about = "Attempts that ended within the last hour, by outcome and error code."
        yield _family("distillery_attempts_last_hour", about, ["outcome", "code"], self._attempts.rows())
        about = "Jobs that failed within the last hour, by error code and fault."
        yield _family("distillery_failures_last_hour", about, ["code", "fault"], self._failures.rows())
        about = "Inspections that ended within the last hour."
        yield _family("distillery_inspections_last_hour", about, ["kind", "status"], self._inspections.rows())


def _family(name: str, about: str, labels: Sequence[str], rows: Sequence[Row]) -> GaugeMetricFamily:
    family = GaugeMetricFamily(name, about, labels=labels)
    for *values, number in rows:
        family.add_metric([str(value) for value in values], number)
    return family


REGISTRY.register(DatabaseCollector())
