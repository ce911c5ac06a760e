"""The task that a wake-up message runs.

One message runs work until none is due. With one message per row, every lost message would leave a worker idle until
the next sweep.
"""

import threading
from collections.abc import Mapping, Sequence
from typing import Any

import structlog
from celery import Celery

from models import migrate
from models.database import UNAVAILABLE
from models.queue.wake_up import WAKE_UP, Kind
from models.records import Job
from models.settings import settings
from worker.attempt.checks import run_checks
from worker.attempt.engine_limits import limit_of_jobs
from worker.attempt.inspection import run_inspection
from worker.attempt.job import run_job
from worker.engine.engine_process import ENGINE
from worker.engine.machine import has_space
from worker.ledger import ends, presence, time_of_day
from worker.ledger.attempts import AttemptLedger
from worker.ledger.changes import Taken
from worker.ledger.claims import SLOTS, Claim, Takes, claim_together
from worker.ledger.inspections import InspectionLedger

log = structlog.get_logger(__name__)


class Slots:
    """The slots of one worker process: each runs one attempt at a time, and has a row of its own in the database."""

    def __init__(self, slots: Sequence["DueWork"]):
        self.ids = [slot.worker_id for slot in slots]
        self.draining = threading.Event()
        for slot in slots:
            slot.draining = self.draining
        self._free = dict(enumerate(slots))
        self._lock = threading.Lock()

    @classmethod
    def of(cls, kind: Kind, sandbox: Mapping[str, Any], command: Sequence[str] = ENGINE) -> "Slots":
        """All slots of a kind of worker, with new rows."""
        about = {"memory_limit": limit_of_jobs()} if kind == "distill" else {}
        ids = {takes: presence.register(kind, sandbox, takes, about) for takes in SLOTS[kind]}
        return cls([DueWork(kind, identifier, command, takes) for takes, identifier in ids.items()])

    def register(self, app: Celery) -> None:
        """Define the task that a wake-up message runs."""
        app.task(name=WAKE_UP, ignore_result=True)(self.run)

    def run(self) -> None:
        """Run due work in the first free slot."""
        with self._lock:
            if not self._free:
                return
            place = min(self._free)
            slot = self._free.pop(place)
        try:
            slot.run()
        finally:
            with self._lock:
                self._free[place] = slot


class DueWork:
    """Runs the due work that one slot takes. `draining` is set when the worker is drained."""

    def __init__(self, kind: Kind, worker_id: str, command: Sequence[str] = ENGINE, takes: Takes = "everything"):
        self.kind = kind
        self.worker_id = worker_id
        self.command = command
        self.takes = takes
        self.draining = threading.Event()

    def run(self) -> None:
        """Claim and run the next due row, until nothing is due.

        After an attempt that this worker could not run (because of a full disk, say), it claims nothing until the next
        message. Otherwise it would claim and put back everything that is queued.
        """
        try:
            if not time_of_day.is_right():
                return
            while not self.draining.is_set():
                if not migrate.is_current():
                    log.error(
                        "SCHEMA_DIFFERS",
                        message="the database has another schema version; this worker claims nothing: start a worker of the"
                        " database's version",
                    )
                    return
                if not has_space():
                    return
                claimed = claim_together(self.kind, self.worker_id, self.takes)
                if not claimed:
                    return
                completed = self._attempt(claimed)
                presence.idle(self.worker_id)
                if not completed:
                    return
        except UNAVAILABLE as error:
            log.warning("nothing_claimed", error=str(error).partition("\n")[0])

    def _attempt(self, claimed: Sequence[Claim]) -> bool:
        try:
            if len(claimed) > 1:
                run_checks(claimed, self.draining, self.command)
            else:
                run = run_job if self.kind == "distill" else run_inspection
                run(claimed[0], self.draining, self.command)
        except Exception as error:
            log.exception("attempt_abandoned", ids=[one.id for one in claimed], attempt=claimed[0].attempt)
            for one in claimed:
                try:
                    put_back(one, error)
                except Taken:  # perhaps because it has ended before the error
                    log.warning("attempt_taken_back_meanwhile", id=one.id, attempt=one.attempt)
            return False
        return True


def put_back(claimed: Claim, error: Exception) -> None:
    """Queue work again that this worker could not run, without waiting for its lease to expire.

    An error of the machine, such as a full disk, does not count as a loss; any other error does.

    Raises:
        Taken: this attempt does not hold the row any more.
    """
    first_line = str(error).partition("\n")[0][:500]
    why = ends.error("worker_failed", f"the worker could not run it: {type(error).__name__}: {first_line}")
    error_of_machine = isinstance(error, OSError)
    delay_seconds = settings().lease_seconds
    if isinstance(claimed.record, Job):
        job = AttemptLedger(claimed.id, claimed.attempt)
        if error_of_machine:
            job.postpone(why, delay_seconds, None)
        else:
            job.lose(why, None)
    else:
        inspection = InspectionLedger(claimed.record)
        if error_of_machine:
            inspection.release(delay_seconds)
        else:
            inspection.lose(why)
