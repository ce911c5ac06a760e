"""Whether an attempt is to go on, asked between the steps of its own work; `engine_watch.py` asks while the engine runs."""

import threading
from typing import Literal

from models.settings import settings
from worker.attempt.lease import Lease
from worker.clock import clock


class EndRequested(Exception):
    """The attempt is to end: its job was cancelled, or the worker is to leave."""

    def __init__(self, request: Literal["cancel", "drain"]):
        super().__init__(request)
        self.request = request


class EndRequests:
    """Cancels and drains of one attempt."""

    def __init__(self, lease: Lease, draining: threading.Event):
        self.lease, self.draining = lease, draining
        self._draining_since: float | None = None

    def check(self) -> None:
        """Go on only while nobody asks the attempt to end.

        Raises:
            Taken: the lease was lost.
            EndRequested: the job is to be cancelled, or the worker to leave.
        """
        self._check_cancelled()
        if self.draining.is_set():
            raise EndRequested("drain")

    def check_with_grace(self) -> None:
        """The same for work that is all but done: a worker that is to leave goes on with it for the grace of a drain."""
        self._check_cancelled()
        if self.draining.is_set():
            self._draining_since = self._draining_since or clock()
            if clock() - self._draining_since > settings().drain_grace_seconds:
                raise EndRequested("drain")

    def _check_cancelled(self) -> None:
        self.lease.check_held()
        if self.lease.cancelled.is_set():
            raise EndRequested("cancel")
