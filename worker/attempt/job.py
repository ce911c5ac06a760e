"""One attempt at a job, from its claim to its end."""

import threading
from collections.abc import Sequence

import structlog

from models.database import UNAVAILABLE
from models.queue.wake_up import wake_up
from models.records import Job
from models.settings import settings
from worker.attempt.attempt_storage import AttemptStorage
from worker.attempt.cancel_deadline import CancelDeadline
from worker.attempt.end_requests import EndRequested, EndRequests
from worker.attempt.engine_limits import limits_of_training
from worker.attempt.engine_watch import EngineWatch
from worker.attempt.fetching import InputMissing
from worker.attempt.inputs import StorageUnavailable, lay_out
from worker.attempt.lease import Lease
from worker.attempt.outcome import Ending, outcome_of
from worker.attempt.publication import Unpublishable, discard_unpublished, store_artifacts, store_log
from worker.attempt.reporter import Reporter
from worker.cache.dataset_cache import HeldDatasets
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
    """Run one attempt at a job; returns when it has ended or was taken back.

    Args:
        draining: set when this worker is drained; the engine is then asked to write a checkpoint and end.
        command: the command line of the engine, without the name of the job file.
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
        try:
            with CancelDeadline(lease):
                JobAttempt(claim.record, folder, lease, draining, command).run()
        except Taken:
            log.warning("attempt_taken_back_meanwhile")
        except UNAVAILABLE as error:
            log.error("database_unavailable", error=str(error).partition("\n")[0])


class JobAttempt:
    """One attempt at a job, in one folder and under one lease."""

    def __init__(
        self, job: Job, folder: Folder, lease: Lease, draining: threading.Event, command: Sequence[str] = ENGINE
    ):
        self.job = job
        self.folder = folder
        self.lease = lease
        self.command = command
        self.requests = EndRequests(lease, draining)
        self.ledger = AttemptLedger(job.id, job.attempt, lease)
        self.log_key: str | None = None

    def run(self) -> None:
        """Fetch the inputs, run the engine, and write the outcome."""
        try:
            with HeldDatasets() as held:
                self._run_with(held)
        except EndRequested as requested:
            end = self.ledger.cancel if requested.request == "cancel" else self.ledger.drain
            end(self.log_key)
        except InputMissing as missing:
            errors = [{"pointer": missing.pointer, "message": missing.message}]
            self.ledger.fail(ends.error("input_missing", missing.message, errors=errors), self.log_key)
        except StorageUnavailable as unavailable:
            self.ledger.postpone(ends.error("storage_away", str(unavailable)), settings().beat_seconds, self.log_key)
        except Unpublishable as unpublishable:
            self.ledger.lose(ends.error("artifacts_not_stored", str(unpublishable)), self.log_key)

    def _run_with(self, held: HeldDatasets) -> None:
        """Run the engine on datasets that are `held` until its end, and write the outcome."""
        lay_out(self.job, self.folder.path, self.ledger, AttemptStorage(self.requests.check), self.lease, held)
        with Reporter(self.ledger, self.folder, self.lease) as reporter:
            ending = self._run_engine(reporter)
            if ending.outcome != "cancelled":
                reporter.uploads.finish(checkpoints=ending.outcome in ("drained", "postponed", "lost"))
            self._end(ending, reporter)

    def _run_engine(self, reporter: Reporter) -> Ending:
        """Run the engine to its end, and report its events."""
        minutes = self.ledger.minutes_allowed()
        used = self.ledger.seconds_used() + clock() - self.lease.claim.sent_at
        threads = settings().engine_threads
        engine = EngineProcess(self.folder.path, self.command, threads, limits=limits_of_training())
        watch = EngineWatch(engine, self.lease, self.requests.draining, minutes * 60 - used, settings().stall_seconds)
        with engine, watch:
            for event in engine.events(PATIENCE_SECONDS):
                if event is not None:
                    watch.event_received()
                    reporter.handle(event)
                reporter.flush()
                reporter.uploads.log(engine.log.path)
            exit = engine.exit()
        self.lease.check_held()
        reporter.finish()
        ending = outcome_of(engine.final_event, watch.request, exit, engine.log.last_lines(), minutes)
        log.info("engine_ended", exit_code=exit.code, outcome=ending.outcome, request=watch.request)
        self.log_key = store_log(self.ledger, AttemptStorage(self.lease.check_held, 0.0), engine.log.path)
        return ending

    def _end(self, ending: Ending, reporter: Reporter) -> None:
        error = ending.error or {}
        if ending.outcome == "succeeded":
            self._publish(ending, reporter)
        elif ending.outcome == "failed":
            self.ledger.fail(error, self.log_key)
        elif ending.outcome == "cancelled":
            self.ledger.cancel(self.log_key)
        elif ending.outcome == "drained":
            self.ledger.drain(self.log_key)
        elif ending.outcome == "postponed":
            self.ledger.postpone(error, settings().lease_seconds, self.log_key)
        elif reporter.unreadable_checkpoint and (checkpoints := self.ledger.checkpoints()):
            # does not count as a loss: there are few checkpoints, and each is dropped once
            self.ledger.drop_checkpoint(checkpoints[0].id, str(error.get("message")))
            self.ledger.postpone(error, 0.0, self.log_key)
        else:
            status = self.ledger.lose(error, self.log_key)
            log.warning("attempt_lost", error=error, status=status)

    def _publish(self, ending: Ending, reporter: Reporter) -> None:
        """Upload the artifacts and set the job `succeeded`. If that fails, no artifacts are left in storage."""
        storage = AttemptStorage(self.requests.check_with_grace)
        files = store_artifacts(reporter.artifacts, self.ledger, self.folder, storage)
        try:
            if self.ledger.succeed(ending.summary or {}, files, self.log_key, ending.student):
                log.info("attempt_succeeded", artifacts=len(files))
                waiting.settle_jobs_of(self.ledger.job_id)  # the jobs whose teacher is this student
                wake_up("inspect")
            else:
                self.ledger.cancel(self.log_key)
        finally:
            discard_unpublished(files, self.ledger)
