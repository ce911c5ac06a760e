"""The lease of a claim: renewed with every heartbeat, and given up before it expires if it cannot be renewed."""

import threading

import structlog

from models.database import UNAVAILABLE
from models.settings import settings
from worker.clock import clock
from worker.ledger.changes import Taken
from worker.ledger.claims import Claim, look, renew

LOOK_SECONDS = 1.0
"""Interval between two checks for a cancel or the loss of the lease."""
TRUSTED_FRACTION = 0.75
"""Fraction of the lease's length for which it counts as held, from when the last renewal was sent."""

log = structlog.get_logger(__name__)


class Lease:
    """Renews a claim in a thread. `cancelled` is set when the job's owner asks for a cancel."""

    def __init__(self, claim: Claim):
        self.claim = claim
        self.cancelled = threading.Event()
        self._taken = threading.Event()
        self._over = threading.Event()
        self._trusted_until = claim.sent_at + TRUSTED_FRACTION * settings().lease_seconds
        self._thread = threading.Thread(target=self._beat, name="beat", daemon=True)

    @property
    def held(self) -> bool:
        """Whether this attempt may still act. It asks neither database nor network: it is true only while the last
        confirmed renewal is certainly valid."""
        return not self._taken.is_set() and clock() < self._trusted_until

    def check_held(self) -> None:
        """Check that the lease is held.

        Raises:
            Taken: it is not.
        """
        if not self.held:
            raise Taken(self.claim.id)

    def give_up(self) -> None:
        """Give up the lease: from now on nothing is written."""
        self._taken.set()

    def __enter__(self) -> "Lease":
        self._thread.start()
        return self

    def __exit__(self, *exception: object) -> None:
        self._over.set()
        self._thread.join()

    def _beat(self) -> None:
        config = settings()
        pause = min(LOOK_SECONDS, config.beat_seconds)
        renewed_at = self.claim.sent_at
        while not self._over.wait(pause) and not self._taken.is_set():
            sent_at = clock()
            try:
                if sent_at - renewed_at >= config.beat_seconds:
                    cancelled = renew(self.claim)
                    renewed_at, self._trusted_until = sent_at, sent_at + TRUSTED_FRACTION * config.lease_seconds
                else:
                    cancelled = look(self.claim)
            except Taken:
                self.give_up()
                return
            except UNAVAILABLE as error:
                log.warning(
                    "beat_failed", id=self.claim.id, attempt=self.claim.attempt, error=str(error).partition("\n")[0]
                )
                continue
            if cancelled:
                self.cancelled.set()
