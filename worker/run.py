"""The life of one attempt at a job, from its claim to its end."""

import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, TypeVar

import structlog

from models.records import Job
from models.settings import settings
from models.storage import StorageError, storage
from worker.engine_process import ENGINE, EngineProcess
from worker.folder import Folder
from worker.inputs import InputMissing, lay_out
from worker.lease import AWAY, Lease
from worker.ledger import ends
from worker.ledger.attempt import AttemptLedger, File
from worker.ledger.changes import Taken
from worker.ledger.claims import Claim
from worker.reporter import CONTENT_TYPE, NAME, Reporter
from worker.watch import Request, Watch

PATIENCE_SECONDS = 0.5
RETRY_SECONDS = 0.5

Outcome = Literal["succeeded", "failed", "cancelled", "drained", "lost"]
Result = TypeVar("Result")
log = structlog.get_logger(__name__)


@dataclass(frozen=True)
class Ending:
    """How an engine's run ended, and what it left to say: an error, or the summary of its report."""

    outcome: Outcome
    error: Mapping[str, Any] | None = None
    summary: Mapping[str, Any] | None = None


def run_job(claim: Claim, draining: threading.Event, command: Sequence[str] = ENGINE) -> None:
    """Run one attempt at a job; returns when it has ended, or is another's.

    Args:
        draining: set when this worker is to leave; the engine is then asked to checkpoint and end.
        command: the engine's, without the job file's name.
    """
    assert isinstance(claim.record, Job)
    ledger = AttemptLedger(claim.id, claim.attempt)
    with (
        structlog.contextvars.bound_contextvars(job=claim.id, attempt=claim.attempt),
        Lease(claim) as lease,
        Folder(claim.id, claim.attempt) as folder,
    ):
        log.info("attempt_begins")
        try:
            _attempt(claim.record, ledger, folder, lease, draining, command)
        except Taken:
            log.warning("attempt_taken_away")
        except AWAY as error:
            log.error("database_away", error=str(error).partition("\n")[0])


def _attempt(
    job: Job, ledger: AttemptLedger, folder: Folder, lease: Lease, draining: threading.Event, command: Sequence[str]
) -> None:
    try:
        insist(lease, lambda: lay_out(job, folder.path, ledger, lease))
    except InputMissing as missing:
        errors = [{"pointer": missing.pointer, "message": missing.message}]
        hint = "Upload it again and submit a new job."
        gone = ends.error("input_missing", missing.message, hint, "service", errors)
        insist(lease, lambda: ledger.fail(gone, None))
        return
    except StorageError as error:
        away = ends.error("storage_away", f"the inputs could not be fetched: {error}")
        insist(lease, lambda: ledger.postpone(away, settings().beat_seconds, None))
        return
    with Reporter(ledger, folder, lease) as reporter:
        ending, log_key = _drive(folder, lease, reporter, draining, command)
        if ending.outcome != "cancelled":
            reporter.finish_uploads(checkpoints=ending.outcome in ("drained", "lost"))
        _end(ending, job, ledger, folder, lease, reporter, log_key)


def _drive(
    folder: Folder, lease: Lease, reporter: Reporter, draining: threading.Event, command: Sequence[str]
) -> tuple[Ending, str | None]:
    """Run the engine to its end, reporting what it says."""
    engine = EngineProcess(folder.path, command, settings().engine_threads)
    with engine, Watch(engine, lease, draining, settings().job_minutes * 60) as watch:
        for event in engine.events(PATIENCE_SECONDS):
            if event is not None:
                reporter.hear(event)
            reporter.flush()
        exit = engine.exit()
    lease.demand()
    insist(lease, lambda: reporter.flush(now=True))
    ending = judge(engine.last_word, watch.request, str(exit), engine.log.last_lines())
    log.info("engine_ended", exit_code=exit.code, outcome=ending.outcome, request=watch.request)
    return ending, _upload_log(lease, folder, engine)


def judge(last_word: Mapping[str, Any] | None, request: Request | None, exit: str, last_lines: str) -> Ending:
    """How a run ended, by the engine's last word (None if it had none) and by what was asked of it."""
    said = last_word or {"event": "nothing"}
    if said["event"] == "done":
        return Ending("succeeded", summary=said.get("summary") or {})
    if request == "cancel":
        return Ending("cancelled")
    if said["event"] == "error" and said.get("fault") in ("user", "job"):
        return Ending("failed", said_error(said))
    if request == "time":
        message = f"the job took longer than the {settings().job_minutes} minutes that this service allows"
        return Ending(
            "failed", ends.error("time_limit", message, "Ask for less training, or for a longer limit.", "user")
        )
    if request == "drain":
        return Ending("drained")
    return Ending("lost", judge_crash(last_word, exit, last_lines))


def judge_crash(last_word: Mapping[str, Any] | None, exit: str, last_lines: str) -> dict[str, Any]:
    """The error of an engine that ended as it should not have."""
    if last_word is None:
        return ends.error("engine_crashed", exit, last_lines)
    if last_word["event"] == "error":
        return said_error(last_word)
    return ends.error("engine_crashed", f"the engine ended unasked with {last_word['event']}", last_lines)


def said_error(said: Mapping[str, Any]) -> dict[str, Any]:
    """The error that an engine said, in the form in which jobs and uploads show it."""
    errors = [item for item in said.get("errors") or [] if isinstance(item, dict)]
    problems = [{"pointer": str(item.get("pointer", "")), "message": str(item.get("message", ""))} for item in errors]
    code, fault = str(said.get("code") or "failed"), str(said.get("fault") or "service")
    return ends.error(code, str(said.get("message") or ""), str(said.get("hint") or ""), fault, problems)


def _end(
    ending: Ending,
    job: Job,
    ledger: AttemptLedger,
    folder: Folder,
    lease: Lease,
    reporter: Reporter,
    log_key: str | None,
) -> None:
    error = ending.error or {}
    if ending.outcome == "succeeded":
        _publish(ending.summary or {}, ledger, folder, lease, reporter, log_key)
    elif ending.outcome == "failed":
        insist(lease, lambda: ledger.fail(error, log_key))
    elif ending.outcome == "cancelled":
        insist(lease, lambda: ledger.cancel(log_key))
    elif ending.outcome == "drained":
        insist(lease, lambda: ledger.drain(log_key))
    else:
        if reporter.unreadable_checkpoint and (checkpoints := ledger.checkpoints()):
            ledger.drop_checkpoint(checkpoints[0].id, str(error.get("message")))
        status = insist(lease, lambda: ledger.lose(error, log_key))
        log.warning("attempt_lost", error=error, status=status)


def _publish(
    summary: Mapping[str, Any],
    ledger: AttemptLedger,
    folder: Folder,
    lease: Lease,
    reporter: Reporter,
    log_key: str | None,
) -> None:
    """Upload the artifacts and set the job `succeeded`; or leave nothing in storage that no row names."""
    files: list[File] = []
    try:
        for event in reporter.artifacts:
            lease.demand()
            if lease.cancelled.is_set():
                break
            files.append(_upload(ledger, folder, event))
        if lease.cancelled.is_set():
            insist(lease, lambda: ledger.cancel(log_key))
        else:
            insist(lease, lambda: ledger.succeed(summary, files, log_key))
            log.info("attempt_succeeded", artifacts=len(files))
    except (StorageError, ValueError, KeyError, OSError) as error:
        message = f"the artifacts could not be stored: {error}"
        insist(lease, lambda: ledger.lose(ends.error("artifacts_not_stored", message), log_key))
    finally:
        _discard_unpublished(files, ledger)


def _upload(ledger: AttemptLedger, folder: Folder, event: Mapping[str, Any]) -> File:
    name, content_type = event["name"], event["content_type"]
    if not NAME.fullmatch(name) or not CONTENT_TYPE.fullmatch(content_type):
        raise ValueError(f"the engine names an artifact {name!r} of type {content_type!r}")
    key = f"jobs/{ledger.job_id}/{ledger.number}/{name}"
    stored = storage().put(key, folder.inside(event["path"]))
    if stored.sha256 != event["sha256"]:
        storage().delete(key)
        raise ValueError(f"{name} has changed since the engine wrote it")
    return File(name, key, content_type, stored.size, stored.sha256)


def _discard_unpublished(files: Sequence[File], ledger: AttemptLedger) -> None:
    try:
        if not files or ledger.published():
            return
        for file in files:
            storage().delete(file.key)
    except (StorageError, *AWAY) as error:
        log.warning("artifacts_left_behind", error=str(error).partition("\n")[0])


def _upload_log(lease: Lease, folder: Folder, engine: EngineProcess) -> str | None:
    key = f"jobs/{lease.claim.id}/{lease.claim.attempt}/engine.log"
    try:
        return key if engine.log.path.stat().st_size and storage().put(key, engine.log.path) else None
    except (StorageError, OSError) as error:
        log.warning("log_not_stored", error=str(error))
        return None


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
