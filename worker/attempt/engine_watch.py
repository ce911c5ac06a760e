"""Watching an engine: what ends it, and how long it may take over it."""

import threading
from typing import Literal

import structlog

from models.settings import settings
from worker.attempt.lease import Lease
from worker.clock import clock
from worker.engine.engine_process import EngineProcess

Request = Literal["cancel", "drain", "time", "stall"]
PAUSE_SECONDS = 0.1

log = structlog.get_logger(__name__)


class EngineWatch:
    """A thread that waits for nothing: it touches neither database nor storage, so it acts in time whatever they do.

    It beats on the engine's input, asks the engine to end (`request` says why), kills it after the grace, and kills it
    at once when the lease is not held any more, or when it was not `heard` for `stall_seconds`.
    """

    def __init__(
        self,
        engine: EngineProcess,
        lease: Lease,
        draining: threading.Event,
        most_seconds: float,
        stall_seconds: float | None = None,
    ):
        self.request: Request | None = None
        self._engine, self._lease, self._draining = engine, lease, draining
        self._most_seconds, self._stall_seconds = most_seconds, stall_seconds
        self._heard = clock()
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._run, name="watch", daemon=True)

    def __enter__(self) -> "EngineWatch":
        self._thread.start()
        return self

    def __exit__(self, *exception: object) -> None:
        self._over.set()
        self._thread.join()

    def heard(self) -> None:
        """The engine has said something."""
        self._heard = clock()

    def _run(self) -> None:
        begun = beaten = clock()
        killed_at: float | None = None
        while not self._over.wait(min(PAUSE_SECONDS, settings().beat_seconds)):
            now = clock()
            if not self._lease.held:
                log.warning("engine_fenced", id=self._lease.claim.id, attempt=self._lease.claim.attempt)
                self._engine.kill()
                return
            if now - beaten >= settings().beat_seconds:
                beaten = now
                self._engine.send("beat")
            if self.request is None and self._stall_seconds is not None and now - self._heard > self._stall_seconds:
                log.warning("engine_stalled", id=self._lease.claim.id, seconds=self._stall_seconds)
                self.request = "stall"
                self._engine.kill()
                return
            request = self._wanted(now - begun)
            if request is not None and request != self.request:
                killed_at = now + self._ask(request)
            if killed_at is not None and now >= killed_at:
                log.warning("engine_overran_its_grace", id=self._lease.claim.id, request=self.request)
                self._engine.kill()
                return

    def _wanted(self, seconds: float) -> Request | None:
        if self._lease.cancelled.is_set():
            return "cancel"
        if self.request == "time" or seconds > self._most_seconds:
            return "time"
        return "drain" if self._draining.is_set() else None

    def _ask(self, request: Request) -> float:
        self.request = request
        self._engine.send("drain" if request == "drain" else "cancel")
        return settings().drain_grace_seconds if request == "drain" else settings().cancel_grace_seconds
