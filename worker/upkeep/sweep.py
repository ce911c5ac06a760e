"""The sweep: a thread in every worker that searches for due work and expired leases. Several may run at the same
time."""

import threading
from collections.abc import Callable, Sequence

import structlog

from models import migrate
from models.database import UNAVAILABLE
from models.settings import settings
from worker.cache import dataset_cache
from worker.engine.folder import sweep_folders
from worker.engine.machine import free_bytes
from worker.ledger import presence, sent_bytes
from worker.upkeep import upkeep
from worker.upkeep.orphans import Orphans
from worker.upkeep.retention import Retention

log = structlog.get_logger(__name__)


class Sweep:
    """Sweeps every `sweep_seconds`, from entering to leaving the context."""

    def __init__(self, worker_ids: Sequence[str]):
        self._worker_ids = worker_ids
        self._slow = Retention(), Orphans()
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._run, name="sweep", daemon=True)

    def __enter__(self) -> "Sweep":
        self._thread.start()
        return self

    def __exit__(self, *exception: object) -> None:
        self._over.set()
        self._thread.join()

    def _run(self) -> None:
        while True:
            sweep(self._worker_ids, self._over, self._slow)
            if self._over.wait(settings().sweep_seconds):
                return


def sweep(
    worker_ids: Sequence[str], over: threading.Event | None = None, slow: Sequence[Orphans | Retention] = ()
) -> None:
    """One sweep. Errors, such as an unavailable database or storage, are logged; the next sweep tries again."""
    try:
        if not migrate.is_current():
            log.error(
                "SCHEMA_DIFFERS",
                message="the database has another schema version; this worker sweeps nothing: start a worker of the"
                " database's version",
            )
            return
    except UNAVAILABLE as error:
        log.warning("database_unavailable", error=str(error).partition("\n")[0])
        return
    duties: tuple[Callable[[], object], ...] = (
        lambda: presence.seen(worker_ids, free_bytes()),
        upkeep.take_back_jobs,
        upkeep.take_back_inspections,
        sent_bytes.clear,
        upkeep.cancel_queued,
        upkeep.cancel_overdue,
        upkeep.settle_stuck_jobs,
        upkeep.wake_idle_workers,
        presence.dismiss_unseen,
        upkeep.clear_checkpoints,
        upkeep.clear_deleted_jobs,
        upkeep.clear_checks,
        sweep_folders,
        dataset_cache.trim,
        *(duty.clear for duty in slow),
    )
    for duty in duties:
        if over is not None and over.is_set():
            return
        try:
            duty()
        except Exception:
            log.exception("sweep_failed", duty=getattr(duty, "__name__", "seen"))
