"""The engine of one inspection: it runs within its limits, and its end is a result, or the inspection is queued again."""

import signal
import threading
from collections.abc import Sequence

import structlog

from models.settings import settings
from worker.attempt.engine_limits import InspectionLimits
from worker.attempt.engine_watch import EngineWatch
from worker.attempt.lease import Lease
from worker.attempt.outcome import crash_error, is_disk_error, is_final_error
from worker.engine.engine_process import EngineProcess, Event, Exit
from worker.engine.folder import Folder
from worker.engine.machine import kills_for_memory
from worker.ledger import ends
from worker.ledger.inspections import InspectionLedger

PATIENCE_SECONDS = 0.5
OUT_OF_MEMORY = ("bad_alloc", "memory allocation of")
"""What C++ and Rust write into the log before they abort because memory ran out."""

log = structlog.get_logger(__name__)


def run_engine(
    ledger: InspectionLedger,
    folder: Folder,
    lease: Lease,
    draining: threading.Event,
    limits: InspectionLimits,
    command: Sequence[str],
) -> Event | None:
    """Run the engine; returns its final event if it is a result for the subject, else None: the inspection is
    queued again."""
    killed_before = kills_for_memory()
    threads, kernel = settings().engine_threads, limits.of_engine()
    engine = EngineProcess(folder.path, command, threads, trains=False, limits=kernel)
    with engine, EngineWatch(engine, lease, draining, limits.seconds) as watch:
        for _ in engine.events(PATIENCE_SECONDS):
            lease.check_held()
        exit = engine.exit()
    lease.check_held()
    event = engine.final_event
    if event is not None and (event["event"] in ("findings", "checked") or is_final_error(event)):
        return event
    if watch.request == "time" or exit.code == -signal.SIGXCPU:
        most = limits.seconds if watch.request == "time" else limits.busy_seconds
        return _refusal("inspection_time", f"it took longer than {most:.0f} seconds")
    if watch.request is not None:
        ledger.release(0.0)
        return None
    if is_disk_error(event):
        log.warning("inspection_postponed", error=event)
        ledger.release(settings().lease_seconds)
        return None
    last = engine.log.last_lines()
    if _ran_out_of_memory(exit, last, killed_before):
        return _refusal("inspection_memory", "it needs more memory than an inspection may use")
    error = crash_error(event, str(exit), last)
    ledger.lose(error)
    log.warning("inspection_lost", error=error)
    return None


def _refusal(code: str, message: str) -> Event:
    """The event of an engine that could not say itself why an inspection fails."""
    return {"event": "error"} | ends.error(code, message)


def _ran_out_of_memory(exit: Exit, last_lines: str, killed_before: int) -> bool:
    """Whether an engine without a final event ended because it, or the machine, ran out of memory."""
    if exit.code == -signal.SIGKILL:
        return kills_for_memory() > killed_before
    return exit.code == -signal.SIGABRT and any(words in last_lines for words in OUT_OF_MEMORY)
