"""What Prometheus is told: of this process at once, of the database from a few queries that are kept for some seconds.

Workers have no port of their own: what they did is in the database, and any API tells it.
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

from api.health.workers import recent
from models.database import now, reading
from models.queue.wake_up import KINDS
from models.records import Attempt, Inspection, Job, Worker
from models.status import InspectionStatus, JobStatus

FRESH_SECONDS = 10.0
"""What moves is counted at most so often."""
SETTLED_SECONDS = 60.0
"""Jobs that have ended may be a million: they are counted more seldom."""
HOUR_SECONDS = 3600.0
FINAL = tuple(status for status in JobStatus if status.final)
LIVE = tuple(status for status in JobStatus if not status.final)

QUERIES = Counter("distillery_database_queries", "Statements that this API has sent to the database.")
Row = Sequence[Any]
Query: TypeAlias = Select[*tuple[Any, ...]]
log = structlog.get_logger("api")


@event.listens_for(Engine, "before_cursor_execute")
def _count(*_: Any) -> None:
    QUERIES.inc()


class Kept:
    """The rows of a query, asked again when they are older than so many seconds."""

    def __init__(self, make: Callable[[], Query], seconds: float):
        self._make, self._seconds = make, seconds
        self._rows: Sequence[Row] = ()
        self._asked_at = -seconds
        self._lock = threading.Lock()

    def rows(self) -> Sequence[Row]:
        """The rows; those of before while the database does not answer."""
        with self._lock:
            if time.monotonic() - self._asked_at >= self._seconds:
                with reading() as session:
                    self._rows = [tuple(row) for row in session.execute(self._make())]
                self._asked_at = time.monotonic()
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
    return select(Worker.kind, busy, func.count()).where(*recent()).group_by(Worker.kind, busy)


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


class Figures(Collector):
    """Counts rows when it is asked."""

    def __init__(self) -> None:
        self._live = Kept(lambda: _jobs(LIVE), FRESH_SECONDS)
        self._final = Kept(lambda: _jobs(FINAL), SETTLED_SECONDS)
        self._queues = {
            "distill": Kept(_waiting_jobs, FRESH_SECONDS),
            "inspect": Kept(_waiting_inspections, FRESH_SECONDS),
        }
        self._workers = Kept(_workers, FRESH_SECONDS)
        self._attempts = Kept(_attempts, FRESH_SECONDS)
        self._failures = Kept(_failures, FRESH_SECONDS)
        self._inspections = Kept(_inspections, FRESH_SECONDS)

    def describe(self) -> Iterable[GaugeMetricFamily]:
        return []  # nothing is asked of the database when the process starts

    def collect(self) -> Iterable[GaugeMetricFamily]:
        try:
            return [*self._standing(), *self._last_hour()]
        except (
            OperationalError,
            InterfaceError,
            PoolTimeout,
        ) as error:  # the other figures are worth having without the database too
            log.warning("figures_not_counted", error=type(error).__name__)
            return []

    def _standing(self) -> Iterable[GaugeMetricFamily]:
        counts: dict[Any, int] = dict.fromkeys(JobStatus, 0) | {row[0]: row[1] for row in self._final.rows()}
        counts |= {row[0]: row[1] for row in self._live.rows()}
        yield _family("distillery_jobs", "Jobs by status.", ["status"], [(str(name), n) for name, n in counts.items()])
        lines = [(kind, *kept.rows()[0]) for kind, kept in self._queues.items()]
        yield _family("distillery_queue_depth", "Work that waits for a worker.", ["kind"], [line[:2] for line in lines])
        ages = [(kind, max(0.0, age or 0.0)) for kind, _, age in lines]
        yield _family("distillery_queue_oldest_seconds", "Age of the oldest work that waits.", ["kind"], ages)
        known = {(kind, busy): 0 for kind in KINDS for busy in (False, True)}
        known |= {(row[0], bool(row[1])): row[2] for row in self._workers.rows()}
        states = [(kind, "busy" if busy else "idle", count) for (kind, busy), count in known.items()]
        yield _family("distillery_workers", "Workers that were seen within a lease.", ["kind", "state"], states)

    def _last_hour(self) -> Iterable[GaugeMetricFamily]:
        about = "Attempts that ended within an hour; `lost` by their code."
        yield _family("distillery_attempts_last_hour", about, ["outcome", "code"], self._attempts.rows())
        about = "Jobs that failed within an hour, by code and whose fault it was."
        yield _family("distillery_failures_last_hour", about, ["code", "fault"], self._failures.rows())
        about = "Inspections that ended within an hour."
        yield _family("distillery_inspections_last_hour", about, ["kind", "status"], self._inspections.rows())


def _family(name: str, about: str, labels: Sequence[str], rows: Sequence[Row]) -> GaugeMetricFamily:
    family = GaugeMetricFamily(name, about, labels=labels)
    for *values, figure in rows:
        family.add_metric([str(value) for value in values], figure)
    return family


REGISTRY.register(Figures())
