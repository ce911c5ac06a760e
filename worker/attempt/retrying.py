"""Going on while the database or the storage is away, for as long as that makes sense."""

import threading
from collections.abc import Callable
from typing import Literal, TypeVar

import structlog

from models.database import AWAY
from models.settings import settings
from models.storage.blobs import Unavailable
from worker.attempt.lease import Lease
from worker.clock import clock

RETRY_SECONDS = 0.5
LONGEST_PAUSE_SECONDS = 5.0

Result = TypeVar("Result")
log = structlog.get_logger(__name__)


class EndRequested(Exception):
    """What the worker does is no longer wanted: the job was cancelled, or the worker is to leave."""

    def __init__(self, request: Literal["cancel", "drain"]):
        super().__init__(request)
        self.request = request


class Wishes:
    """What is wanted of an attempt, beside its work. `attend` goes between the parts of what takes long."""

    def __init__(self, lease: Lease, draining: threading.Event):
        self.lease, self.draining = lease, draining
        self._draining_since: float | None = None

    def attend(self) -> None:
        """Go on only while the attempt is wanted.

        Raises:
            Taken: the lease was lost.
            Asked: the job is to be cancelled, or the worker to leave.
        """
        self.lease.demand()
        if self.lease.cancelled.is_set():
            raise EndRequested("cancel")
        if self.draining.is_set():
            raise EndRequested("drain")

    def attend_late(self) -> None:
        """The same for work that is all but done: a worker that is to leave goes on with it for the grace of a drain."""
        self.lease.demand()
        if self.lease.cancelled.is_set():
            raise EndRequested("cancel")
        if self.draining.is_set():
            self._draining_since = self._draining_since or clock()
            if clock() - self._draining_since > settings().drain_grace_seconds:
                raise EndRequested("drain")


def insist(lease: Lease, write: Callable[[], Result]) -> Result:
    """Do it, again and again while the database is away, for as long as the lease is surely held.

    Raises:
        Taken: the lease was lost.
    """
    pause = threading.Event()
    while True:
        lease.demand()
        try:
            return write()
        except AWAY as error:
            log.warning("database_away_retrying", error=str(error).partition("\n")[0])
            pause.wait(RETRY_SECONDS)


def persist(attend: Callable[[], None], store: Callable[[], Result], seconds: float | None = None) -> Result:
    """Do it, again and again while the storage is away, for `seconds` (the setting `storage_patience_seconds`).

    `attend` is called before every try and in every pause; what it raises ends the tries.

    Raises:
        Unavailable: the storage was away for so long.
    """
    give_up = clock() + (settings().storage_patience_seconds if seconds is None else seconds)
    pause_seconds, pause = RETRY_SECONDS, threading.Event()
    while True:
        attend()
        try:
            return store()
        except Unavailable as error:
            if clock() + pause_seconds > give_up:
                raise
            log.warning("storage_away_retrying", error=str(error))
        again = clock() + pause_seconds
        while clock() < again:
            pause.wait(min(RETRY_SECONDS, pause_seconds))
            attend()
        pause_seconds = min(LONGEST_PAUSE_SECONDS, 2 * pause_seconds)
