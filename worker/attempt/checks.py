"""Checks of several specs that one slot has claimed together: one engine runs them, one after the other.

A spec is plain data. A check that also reads a user's file, or chooses a student for a budget, runs in an engine of its own, and so does
the check during which the engine of several has ended; the checks that would have followed it go back to the queue.
"""

import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any

import structlog
from sqlalchemy import select

from models.database import UNAVAILABLE, reading
from models.queue.wake_up import wake_up
from models.records import Inspection, Job
from models.settings import settings
from models.spec.compression import plans
from worker.attempt.engine_limits import InspectionLimits
from worker.attempt.engine_watch import EngineWatch
from worker.attempt.fetching import InputMissing
from worker.attempt.inputs import describe_run, reads_files, write_job_file
from worker.attempt.inspection import InspectionAttempt
from worker.attempt.inspection_engine import PATIENCE_SECONDS
from worker.attempt.lease import Lease
from worker.attempt.outcome import is_final_error
from worker.attempt.spec_check import AskedCheck
from worker.clock import clock
from worker.engine.engine_process import ENGINE, EngineProcess, Event
from worker.engine.folder import Folder
from worker.ledger.changes import Taken
from worker.ledger.claims import Claim

TOGETHER_SECONDS = 30.0
"""Time limit of the engine of several checks. A check that takes longer has an engine of its own afterwards."""
ALONE_SECONDS = 5.0
"""Time after which no further check is run alone, since the others of the claim wait for it."""
UNSURE = "out_of_memory"
"""Code of an error that may be due to earlier checks of the same engine."""
MOST_MESSAGES = 4
"""Most wake-up messages for the jobs of one claim; each wakes one idle worker."""

log = structlog.get_logger(__name__)


class Leases:
    """The leases of several claims, for the watch over their common engine."""

    def __init__(self, leases: Sequence[Lease]):
        self.claim = leases[0].claim
        self.cancelled = threading.Event()
        """Never set: the cancel of one job does not end the checks of others."""
        self._leases = leases

    @property
    def held(self) -> bool:
        """Whether any of the leases is held."""
        return any(lease.held for lease in self._leases)


def run_checks(claims: Sequence[Claim], draining: threading.Event, command: Sequence[str] = ENGINE) -> None:
    """Run one attempt at each of several checks; returns when all have ended or were put back."""
    first = claims[0]
    with (
        structlog.contextvars.bound_contextvars(inspection=first.id, attempt=first.attempt),
        ExitStack() as stack,
        Folder(f"{first.id}-together", first.attempt) as folder,
    ):
        leases = [stack.enter_context(Lease(claim)) for claim in claims]
        log.info("checks_begin", ids=[claim.id for claim in claims])
        try:
            Checks(folder, leases, draining, command).run()
        except Taken:
            log.warning("checks_taken_back_meanwhile")
        except UNAVAILABLE as error:
            log.error("database_unavailable", error=str(error).partition("\n")[0])


class Checks:
    """The attempts at several checks, under the leases of their claims."""

    def __init__(self, folder: Folder, leases: Sequence[Lease], draining: threading.Event, command: Sequence[str]):
        self._folder = folder
        self._draining = draining
        self._command = command
        self._attempts = [self._attempt(lease, folder) for lease in leases]

    def run(self) -> None:
        """Run the checks that read no files and choose nothing in one engine, and the others each in its own."""
        together: list[tuple[InspectionAttempt, Mapping[str, Any]]] = []
        alone: list[InspectionAttempt] = []
        for attempt, asked in self._attempts[0].ledger.read(self._asked):
            with _unless_taken(attempt):
                if isinstance(asked, InputMissing):
                    attempt.spec_check.fail(asked)
                elif asked is None:
                    attempt.ledger.drop()
                elif reads_files(*asked) or plans(asked[0]):
                    alone.append(attempt)
                else:
                    together.append((attempt, attempt.spec_check.job_file(*asked)))
        unsettled = self._run_together(together) if together else []
        self._run_alone([*unsettled[:1], *alone])
        _put_back(unsettled[1:])

    def _asked(self) -> list[tuple[InspectionAttempt, AskedCheck | InputMissing | None]]:
        """The specs of all checks, read in one transaction: their jobs together, and each of their inputs once."""
        found: list[tuple[InspectionAttempt, AskedCheck | InputMissing | None]] = []
        with reading() as session:
            ids = [attempt.ledger.subject_id for attempt in self._attempts if attempt.ledger.kind == "job"]
            jobs = session.scalars(select(Job).where(Job.id.in_(ids))).all()
            for attempt in self._attempts:
                try:
                    found.append((attempt, attempt.spec_check.asked(session)))
                except InputMissing as missing:
                    found.append((attempt, missing))
            del jobs  # until here the session finds them without a statement
        return found

    def _attempt(self, lease: Lease, folder: Folder) -> InspectionAttempt:
        record = lease.claim.record
        assert isinstance(record, Inspection)
        return InspectionAttempt(record, folder, lease, self._draining, self._command)

    def _run_together(self, checks: Sequence[tuple[InspectionAttempt, Mapping[str, Any]]]) -> list[InspectionAttempt]:
        """Run checks in one engine; returns those without a result, first the one during which the engine has ended."""
        first, limits = checks[0][0], InspectionLimits.of_check()
        content = describe_run("checks", first.ledger.subject_id, first.ledger.attempt, first.ledger.request_id)
        content |= limits.of_job_file() | {"checks": [each for _, each in checks]}
        write_job_file(self._folder.path, content)
        results = _Results([attempt for attempt, _ in checks])
        threads, kernel = settings().engine_threads, limits.of_engine()
        engine = EngineProcess(self._folder.path, self._command, threads, trains=False, limits=kernel)
        leases = Leases([attempt.lease for attempt, _ in checks])
        with engine, EngineWatch(engine, leases, self._draining, TOGETHER_SECONDS):
            for event in engine.events(PATIENCE_SECONDS):
                if event is not None and event["event"] == "result":
                    results.add(event)
            exit = engine.exit()
        results.wake_workers()
        if results.unsettled:
            log.warning("checks_unsettled", count=len(results.unsettled), exit=str(exit))
        return results.unsettled

    def _run_alone(self, attempts: Sequence[InspectionAttempt]) -> None:
        began = clock()
        for number, attempt in enumerate(attempts):
            if self._draining.is_set() or (number and clock() - began > ALONE_SECONDS):
                _put_back(attempts[number:])
                return
            with _unless_taken(attempt), Folder(attempt.ledger.id, attempt.ledger.attempt) as folder:
                self._attempt(attempt.lease, folder).run()


class _Results:
    """What the engine of several checks has found so far."""

    def __init__(self, attempts: Sequence[InspectionAttempt]):
        self.unsettled = list(attempts)
        self._attempts = attempts
        self._passed = 0

    def add(self, event: Event) -> None:
        """Record a result, unless it may be due to other checks: then its check stays without one."""
        attempt = self._attempts[event["number"]]
        error = event.get("error")
        if error is not None and (not is_final_error(error) or error.get("code") == UNSURE):
            return
        with _unless_taken(attempt):
            if attempt.spec_check.settle(error or {"event": "checked", "facts": event.get("facts")}):
                self._passed += 1
                if self._passed == 1:  # the first job need not wait for the checks of the others
                    wake_up("distill")
        self.unsettled.remove(attempt)

    def wake_workers(self) -> None:
        """Wake workers for the jobs that have become ready."""
        if self._passed > 1:
            wake_up("distill", min(self._passed - 1, MOST_MESSAGES))


@contextmanager
def _unless_taken(attempt: InspectionAttempt) -> Iterator[None]:
    """A block that ends if the attempt does not hold its inspection any more."""
    try:
        yield
    except Taken:
        log.warning("inspection_taken_back_meanwhile", id=attempt.ledger.id)


def _put_back(attempts: Sequence[InspectionAttempt]) -> None:
    for attempt in attempts:
        with _unless_taken(attempt):
            attempt.ledger.release(0.0)
