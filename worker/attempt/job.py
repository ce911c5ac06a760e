"""The life of one attempt at a job, from its claim to its end."""

import threading
from collections.abc import Sequence

import structlog

from models.database import AWAY
from models.queue.wake_up import ring
from models.records import Job
from models.settings import settings
from models.storage.blobs import StorageError
from worker.attempt.canceller import Canceller
from worker.attempt.engine_watch import EngineWatch
from worker.attempt.inputs import InputMissing, lay_out
from worker.attempt.lease import Lease
from worker.attempt.outcome import Ending, judge
from worker.attempt.publication import Unpublishable, discard_unpublished, store_artifacts, store_log
from worker.attempt.reporter import Reporter
from worker.attempt.retrying import EndRequested, Wishes, insist, persist
from worker.clock import clock
from worker.engine.engine_process import ENGINE, EngineProcess
from worker.engine.folder import Folder
from worker.ledger import ends, waiting
from worker.ledger.attempts import AttemptLedger
from worker.ledger.changes import Taken
from worker.ledger.claims import Claim

PATIENCE_SECONDS = 0.5

log = structlog.get_logger(__name__)


def run_job(claim: Claim, draining: threading.Event, command: Sequence[str] = ENGINE) -> None:
    """Run one attempt at a job; returns when it has ended, or is another's.

    Args:
        draining: set when this worker is to leave; the engine is then asked to checkpoint and end.
        command: the engine's, without the job file's name.
    """
    assert isinstance(claim.record, Job)
    with (
        structlog.contextvars.bound_contextvars(
            job=claim.id, attempt=claim.attempt, request_id=claim.record.request_id
        ),
        Lease(claim) as lease,
        Folder(claim.id, claim.attempt) as folder,
    ):
        log.info("attempt_begins")
        attempt = JobAttempt(claim.record, folder, lease, draining, command)
        try:
            with Canceller(lease, attempt.ledger):
                attempt.run()
        except Taken:
            log.warning("attempt_taken_away")
        except AWAY as error:
            log.error("database_away", error=str(error).partition("\n")[0])


class JobAttempt:
    """One attempt at a job, in one folder and under one lease."""

    def __init__(
        self, job: Job, folder: Folder, lease: Lease, draining: threading.Event, command: Sequence[str] = ENGINE
    ):
        self.job, self.folder, self.lease, self.command = job, folder, lease, command
        self.ledger = AttemptLedger(job.id, job.attempt)
        self.wishes = Wishes(lease, draining)
        self.log_key: str | None = None

    def run(self) -> None:
        """Fetch the inputs, run the engine, and write how it ended."""
        try:
            insist(self.lease, lambda: persist(self.wishes.attend, self._lay_out))
        except EndRequested as asked:
            self._leave(asked)
            return
        except InputMissing as missing:
            errors = [{"pointer": missing.pointer, "message": missing.message}]
            gone = ends.error("input_missing", missing.message, errors=errors)
            insist(self.lease, lambda: self.ledger.fail(gone, None))
            return
        except StorageError as error:
            self._postpone(ends.error("storage_away", f"the inputs could not be fetched: {error}"))
            return
        with Reporter(self.ledger, self.folder, self.lease) as reporter:
            ending = self._drive(reporter)
            if ending.outcome != "cancelled":
                reporter.finish_uploads(checkpoints=ending.outcome in ("drained", "lost"))
            self._end(ending, reporter)

    def _lay_out(self) -> None:
        lay_out(self.job, self.folder.path, self.ledger, self.lease, self.wishes.attend)

    def _drive(self, reporter: Reporter) -> Ending:
        """Run the engine to its end, reporting what it says."""
        minutes = insist(self.lease, self.ledger.minutes_allowed)
        used = insist(self.lease, self.ledger.seconds_used) + clock() - self.lease.claim.sent_at
        engine = EngineProcess(self.folder.path, self.command, settings().engine_threads)
        watch = EngineWatch(engine, self.lease, self.wishes.draining, minutes * 60 - used, settings().stall_seconds)
        with engine, watch:
            for event in engine.events(PATIENCE_SECONDS):
                if event is not None:
                    watch.heard()
                    reporter.hear(event)
                reporter.flush()
                reporter.keep_log(engine.log.path)
            exit = engine.exit()
        self.lease.demand()
        insist(self.lease, lambda: reporter.flush(now=True))
        ending = judge(engine.last_word, watch.request, str(exit), engine.log.last_lines(), minutes)
        log.info("engine_ended", exit_code=exit.code, outcome=ending.outcome, request=watch.request)
        self.log_key = store_log(self.ledger, engine.log.path)
        return ending

    def _end(self, ending: Ending, reporter: Reporter) -> None:
        error = ending.error or {}
        if ending.outcome == "succeeded":
            self._publish(ending, reporter)
        elif ending.outcome == "failed":
            insist(self.lease, lambda: self.ledger.fail(error, self.log_key))
        elif ending.outcome == "cancelled":
            insist(self.lease, lambda: self.ledger.cancel(self.log_key))
        elif ending.outcome == "drained":
            insist(self.lease, lambda: self.ledger.drain(self.log_key))
        elif reporter.unreadable_checkpoint and (checkpoints := self.ledger.checkpoints()):
            # no loss: there are few checkpoints, and each is dropped once
            self.ledger.drop_checkpoint(checkpoints[0].id, str(error.get("message")))
            self._postpone(error, 0.0)
        else:
            status = insist(self.lease, lambda: self.ledger.lose(error, self.log_key))
            log.warning("attempt_lost", error=error, status=status)

    def _publish(self, ending: Ending, reporter: Reporter) -> None:
        """Upload the artifacts and set the job `succeeded`; or leave nothing in storage that no row names."""
        try:
            files = store_artifacts(reporter.artifacts, self.ledger, self.folder, self.wishes.attend_late)
        except EndRequested as asked:
            self._leave(asked)
            return
        except StorageError as error:
            self._postpone(ends.error("storage_away", f"the artifacts could not be stored: {error}"))
            return
        except Unpublishable as unpublishable:
            why = ends.error("artifacts_not_stored", str(unpublishable))
            insist(self.lease, lambda: self.ledger.lose(why, self.log_key))
            return
        try:
            summary, student = ending.summary or {}, ending.student
            if insist(self.lease, lambda: self.ledger.succeed(summary, files, self.log_key, student)):
                log.info("attempt_succeeded", artifacts=len(files))
                waiting.settle_jobs_of(self.ledger.job_id)  # those that the student is to teach
                ring("inspect")
            else:
                insist(self.lease, lambda: self.ledger.cancel(self.log_key))
        finally:
            discard_unpublished(files, self.ledger)

    def _leave(self, asked: EndRequested) -> None:
        end = self.ledger.cancel if asked.request == "cancel" else self.ledger.drain
        insist(self.lease, lambda: end(self.log_key))

    def _postpone(self, error: ends.Error, delay_seconds: float | None = None) -> None:
        delay = settings().beat_seconds if delay_seconds is None else delay_seconds
        insist(self.lease, lambda: self.ledger.postpone(error, delay, self.log_key))
