"""The watch over a running engine: end requests, grace periods, time limit and stalls."""

import threading
from typing import Literal, Protocol

import structlog

from models.settings import settings
from worker.clock import clock
from worker.engine.engine_process import EngineProcess
from worker.ledger.claims import Claim

Request = Literal["cancel", "drain", "time", "stall"]
PAUSE_SECONDS = 0.1

log = structlog.get_logger(__name__)


class WatchedLease(Protocol):
    """What the watch reads of a lease."""

    claim: Claim
    cancelled: threading.Event

    @property
    def held(self) -> bool: ...


class EngineWatch:
    """A thread that uses neither database nor storage, so it is never late because of them.

    It sends heartbeats to the engine, asks the engine to end (`request` says why) and kills it after the grace period.
    It kills the engine at once if the lease is lost, or if the engine sends no event for `stall_seconds`.
    """

    def __init__(
        self,
        engine: EngineProcess,
        lease: WatchedLease,
        draining: threading.Event,
        most_seconds: float,
        stall_seconds: float | None = None,
    ):
        self.request: Request | None = None
        self._engine = engine
        self._lease = lease
        self._draining = draining
        self._most_seconds = most_seconds
        self._stall_seconds = stall_seconds
        self._last_event_at = clock()
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._run, name="watch", daemon=True)

    def __enter__(self) -> "EngineWatch":
        self._thread.start()
        return self

    def __exit__(self, *exception: object) -> None:
        self._over.set()
        self._thread.join()

    def event_received(self) -> None:
        """The engine has sent an event."""
        self._last_event_at = clock()

    def _run(self) -> None:
        started_at = beat_at = clock()
        killed_at: float | None = None
        while not self._over.wait(min(PAUSE_SECONDS, settings().beat_seconds)):
            now = clock()
            if not self._lease.held:
                log.warning("engine_killed_without_lease", id=self._lease.claim.id, attempt=self._lease.claim.attempt)
                self._engine.kill()
                return
            if now - beat_at >= settings().beat_seconds:
                beat_at = now
                self._engine.send("beat")
            silent_seconds = now - self._last_event_at
            if self.request is None and self._stall_seconds is not None and silent_seconds > self._stall_seconds:
                log.warning("engine_stalled", id=self._lease.claim.id, seconds=self._stall_seconds)
                self.request = "stall"
                self._engine.kill()
                return
            request = self._due_request(now - started_at)
            if request is not None and request != self.request:
                killed_at = now + self._ask(request)
            if killed_at is not None and now >= killed_at:
                log.warning("engine_killed_after_grace", id=self._lease.claim.id, request=self.request)
                self._engine.kill()
                return

    def _due_request(self, seconds: float) -> Request | None:
        if self._lease.cancelled.is_set():
            return "cancel"
        if self.request == "time" or seconds > self._most_seconds:
            return "time"
        return "drain" if self._draining.is_set() else None

    def _ask(self, request: Request) -> float:
        self.request = request
        self._engine.send("drain" if request == "drain" else "cancel")
        return settings().drain_grace_seconds if request == "drain" else settings().cancel_grace_seconds
