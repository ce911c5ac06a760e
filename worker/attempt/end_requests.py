"""Cancel and drain requests, checked between the steps of an attempt. While the engine runs, `engine_watch.py`
checks."""

import threading
from typing import Literal

from models.settings import settings
from worker.attempt.lease import Lease
from worker.clock import clock


class EndRequested(Exception):
    """The attempt must end: its job was cancelled, or the worker is being drained."""

    def __init__(self, request: Literal["cancel", "drain"]):
        super().__init__(request)
        self.request = request


class EndRequests:
    """Cancel and drain requests of one attempt."""

    def __init__(self, lease: Lease, draining: threading.Event):
        self.lease = lease
        self.draining = draining
        self._draining_since: float | None = None

    def check(self) -> None:
        """Check that the attempt may continue.

        Raises:
            Taken: the lease was lost.
            EndRequested: the job was cancelled, or the worker is being drained.
        """
        self._check_cancelled()
        if self.draining.is_set():
            raise EndRequested("drain")

    def check_with_grace(self) -> None:
        """The same for work that is nearly done: during a drain it may continue for the grace period of a drain."""
        self._check_cancelled()
        if self.draining.is_set():
            self._draining_since = self._draining_since or clock()
            if clock() - self._draining_since > settings().drain_grace_seconds:
                raise EndRequested("drain")

    def _check_cancelled(self) -> None:
        self.lease.check_held()
        if self.lease.cancelled.is_set():
            raise EndRequested("cancel")
