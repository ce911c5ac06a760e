"""What a worker does when it is woken up.

One wake-up message runs work until none is due. A message for each row would do as well where nothing is lost; but a
message that was lost would leave a worker idle until the next sweep, once for each row that waits.
"""

import threading
from collections.abc import Sequence

import structlog
from celery import Celery

from models import migrate
from models.database import AWAY
from models.queue.wake_up import WAKE_UP, Kind
from models.records import Job
from models.settings import settings
from worker.attempt.inspection import run_inspection
from worker.attempt.job import run_job
from worker.engine.engine_process import ENGINE
from worker.ledger import ends, presence
from worker.ledger.attempts import AttemptLedger
from worker.ledger.changes import Taken
from worker.ledger.claims import Claim, claim
from worker.ledger.inspections import InspectionLedger

log = structlog.get_logger(__name__)


class DueWork:
    """Runs what is due of one kind, for one worker: its row, and whether it is about to leave (`draining`)."""

    def __init__(self, kind: Kind, worker_id: str, command: Sequence[str] = ENGINE):
        self.kind, self.worker_id, self.command = kind, worker_id, command
        self.draining = threading.Event()

    def register(self, app: Celery) -> None:
        """Define the task that a wake-up message runs."""
        app.task(name=WAKE_UP, ignore_result=True)(self.run)

    def run(self) -> None:
        """Claim the best due row and run it, again until nothing is due. A message that finds nothing is dropped.

        After an attempt that this worker could not carry out (a full disk) it claims no more until the next message, or
        it would take everything that is queued with it.
        """
        try:
            while not self.draining.is_set():
                if not migrate.is_current():
                    log.error(
                        "SCHEMA_DIFFERS", message="this worker claims nothing: start one of the database's version"
                    )
                    return
                claimed = claim(self.kind, self.worker_id)
                if claimed is None:
                    return
                carried_out = self._attempt(claimed)
                presence.idle(self.worker_id)
                if not carried_out:
                    return
        except AWAY as error:
            log.warning("nothing_claimed", error=str(error).partition("\n")[0])

    def _attempt(self, claimed: Claim) -> bool:
        run = run_job if self.kind == "distill" else run_inspection
        try:
            run(claimed, self.draining, self.command)
        except Exception as error:
            log.exception("attempt_abandoned", id=claimed.id, attempt=claimed.attempt)
            try:
                put_back(claimed, error)
            except Taken:
                log.warning("attempt_taken_away", id=claimed.id, attempt=claimed.attempt)
            return False
        return True


def put_back(claimed: Claim, error: Exception) -> None:
    """Put back what this worker could not carry out, without waiting for its lease to run out.

    What the machine refuses (a full disk) is not the work's fault and does not count as a loss; anything else does.

    Raises:
        Taken: it is another's already.
    """
    sentence = str(error).partition("\n")[0][:500]
    why = ends.error("worker_failed", f"the worker could not carry it out: {type(error).__name__}: {sentence}")
    blameless, delay_seconds = isinstance(error, OSError), settings().lease_seconds
    if isinstance(claimed.record, Job):
        job = AttemptLedger(claimed.id, claimed.attempt)
        if blameless:
            job.postpone(why, delay_seconds, None)
        else:
            job.lose(why, None)
    else:
        inspection = InspectionLedger(claimed.record)
        if blameless:
            inspection.release(delay_seconds)
        else:
            inspection.lose(why)
