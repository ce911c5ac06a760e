"""One worker process: a Celery worker with one thread for each slot, which react to wake-up messages, and a sweep in another
thread."""

import uuid
from collections.abc import Sequence
from typing import Any

import structlog
from celery.signals import setup_logging, worker_shutting_down

from models import logs, startup
from models.cannot_start import explained
from models.database import UNAVAILABLE
from models.queue.wake_up import Kind, app, wake_up
from models.secrecy import hide_memory
from worker import early_signals
from worker.engine import sandbox_probe
from worker.engine.engine_process import ENGINE
from worker.engine.engine_start import forks
from worker.ledger import presence
from worker.mlflow.mirror import Mirror
from worker.tasks import Slots
from worker.upkeep.sweep import Sweep
from worker.webhooks.courier import Courier

log = structlog.get_logger(__name__)


def serve(kind: Kind, command: Sequence[str] = ENGINE) -> int:
    """Work until SIGTERM or SIGINT; returns the exit code.

    The signal starts a drain: a running engine saves a checkpoint and ends, its job is queued again, and the process ends.
    """
    early_signals.install()
    hide_memory()
    with forks.open(command, training=kind == "distill"):
        return _serve(kind, command)


def _serve(kind: Kind, command: Sequence[str]) -> int:
    startup.prepare()
    if early_signals.received():
        return 0  # before any slow work
    try:
        confined_by = sandbox_probe.establish(kind)
    except sandbox_probe.NoSandbox as error:
        log.error("NO_SANDBOX", message=str(error))
        return 1
    with explained():
        work = Slots.of(kind, confined_by, command)
    structlog.contextvars.bind_contextvars(worker=work.ids[0], kind=kind)
    work.register(app())

    def drain(**signal: Any) -> None:
        log.info("draining", signal=signal.get("sig"))
        work.draining.set()

    worker_shutting_down.connect(drain, weak=False)
    setup_logging.connect(configure_celery_logging, weak=False)
    log.info("worker_started")
    code = 0
    if not early_signals.received():
        with Sweep(work.ids), Courier(), Mirror():
            code = _listen(kind, len(work.ids))
    try:
        presence.leave(work.ids)
    except UNAVAILABLE as error:
        log.warning("worker_row_not_closed", error=str(error).partition("\n")[0])
    wake_up(kind)  # for the job that this worker has put back
    log.info("worker_stopped", code=code)
    return code


def _listen(kind: Kind, slots: int) -> int:
    worker = app().Worker(
        hostname=f"{kind}-{uuid.uuid4().hex[:8]}@{presence.host()}",
        queues=[kind],
        pool_cls="threads",
        concurrency=slots,
        loglevel="WARNING",
        quiet=True,
        without_gossip=True,
        without_mingle=True,
        without_heartbeat=True,
    )
    early_signals.hand_over()
    worker.start()
    return int(worker.exitcode or 0)


def configure_logging() -> None:
    """Log structured lines to standard error: coloured on a terminal, else JSON."""
    logs.configure()


def configure_celery_logging(**_: Any) -> None:
    """Keep Celery from configuring logging; its warnings go to the root logger."""
