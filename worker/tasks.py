"""What a worker does on a bell.

One bell runs work until none is due. A bell for each row would do as well where nothing is lost; but a bell that was lost
would leave a worker idle until the next sweep, once for each row that waits.
"""

import threading
from collections.abc import Sequence

import structlog
from celery import Celery

from models.queue import BELL, Kind
from worker.engine_process import ENGINE
from worker.inspection import run_inspection
from worker.lease import AWAY
from worker.ledger import presence
from worker.ledger.claims import Claim, claim
from worker.run import run_job

log = structlog.get_logger(__name__)


class Post:
    """One worker's place: its kind, its row, and whether it is about to leave (`draining`)."""

    def __init__(self, kind: Kind, worker_id: str, command: Sequence[str] = ENGINE):
        self.kind, self.worker_id, self.command = kind, worker_id, command
        self.draining = threading.Event()

    def listen(self, app: Celery) -> None:
        """Define the bell's task."""
        app.task(name=BELL, ignore_result=True)(self.answer)

    def answer(self) -> None:
        """Claim the best due row and run it, again until nothing is due. A bell that finds nothing is dropped."""
        try:
            while not self.draining.is_set():
                claimed = claim(self.kind, self.worker_id)
                if claimed is None:
                    return
                self._run(claimed)
                presence.idle(self.worker_id)
        except AWAY as error:
            log.warning("bell_unanswered", error=str(error).partition("\n")[0])

    def _run(self, claimed: Claim) -> None:
        run = run_job if self.kind == "distill" else run_inspection
        try:
            run(claimed, self.draining, self.command)
        except Exception:
            log.exception("attempt_abandoned", id=claimed.id, attempt=claimed.attempt)
