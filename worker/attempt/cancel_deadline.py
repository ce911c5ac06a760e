"""The deadline of a cancel: a separate thread, because the attempt's own thread may be waiting for database or
storage."""

import threading

import structlog

from models.database import UNAVAILABLE
from models.settings import settings
from worker.attempt.lease import Lease
from worker.clock import clock
from worker.ledger.attempts import AttemptLedger
from worker.ledger.changes import Taken

PAUSE_SECONDS = 0.2
AFTER_GRACE_SECONDS = 0.5

log = structlog.get_logger(__name__)


class CancelDeadline:
    """Sets the job `cancelled` soon after the engine's grace period, if the attempt has not. Later writes are
    refused."""

    def __init__(self, lease: Lease):
        self._lease = lease
        self._ledger = AttemptLedger(
            lease.claim.id, lease.claim.attempt
        )  # without a lease it does not retry; this thread does
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._run, name="cancel-deadline", daemon=True)

    def __enter__(self) -> "CancelDeadline":
        self._thread.start()
        return self

    def __exit__(self, *exception: object) -> None:
        self._over.set()
        self._thread.join()

    def _run(self) -> None:
        due: float | None = None
        while not self._over.wait(PAUSE_SECONDS) and self._lease.held:
            if due is None and self._lease.cancelled.is_set():
                due = clock() + settings().cancel_grace_seconds + AFTER_GRACE_SECONDS
            if due is not None and clock() >= due and self._cancel():
                return

    def _cancel(self) -> bool:
        try:
            self._ledger.cancel(None)
            log.warning("cancelled_at_deadline", job=self._ledger.job_id)
        except Taken:
            log.debug("cancelled_already")
        except UNAVAILABLE:
            return False
        self._lease.give_up()
        return True
