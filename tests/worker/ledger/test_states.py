"""All actions of workers and sweeps on jobs, in random order, with a database clock that the test sets.

Invariants after every step: no two workers hold the same job, final states do not change, artifacts are those of the
attempt that succeeded, all or none, and events are numbered without gaps.
"""

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import pytest
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    Bundle,
    RuleBasedStateMachine,
    initialize,
    invariant,
    multiple,
    rule,
    run_state_machine_as_test,
)
from sqlalchemy import event, text

from models.database import Record, engine, now, transaction
from models.records import Artifact, Attempt, Checkpoint, Event, Job, Metric, Worker
from models.settings import settings as configured
from models.status import JobStatus
from tests.worker.scenes import change, get, make_job, make_key, rows
from worker.ledger import ends, presence
from worker.ledger.attempts import AttemptLedger, EventBatch, File
from worker.ledger.changes import Note, Taken
from worker.ledger.claims import Claim, claim, renew
from worker.upkeep import upkeep

LEASE_SECONDS, GRACE_SECONDS = 10.0, 2.0
NAMES = {"student.safetensors", "report.json"}
FAKE = """
CREATE SCHEMA fake;
CREATE TABLE fake.clock (seconds float8 NOT NULL);
INSERT INTO fake.clock VALUES (0);
CREATE FUNCTION fake.clock_timestamp() RETURNS timestamptz LANGUAGE sql VOLATILE
    AS 'SELECT to_timestamp(seconds) FROM fake.clock';
"""


class Clock:
    """A database clock that the test sets. On both databases it replaces the function that `now()` calls."""

    def __init__(self) -> None:
        self.seconds = float(int(time.time()))
        self._postgres = engine().dialect.name == "postgresql"
        if self._postgres:
            with engine().begin() as connection:
                connection.execute(text(FAKE))
        event.listen(engine(), "connect", self._replace)
        engine().dispose()
        self.advance(0.0)

    def _replace(self, connection: Any, record: Any) -> None:
        if self._postgres:
            connection.execute("SET search_path = fake, pg_catalog, public")
            connection.commit()
        else:
            connection.create_function("julianday", 1, lambda _: self.seconds / 86400 + 2440587.5)
            connection.execute("PRAGMA synchronous=OFF")

    def advance(self, seconds: float) -> None:
        self.seconds += seconds
        if self._postgres:
            with engine().begin() as connection:
                connection.execute(text("UPDATE fake.clock SET seconds = :now"), {"now": self.seconds})


@dataclass(eq=False)
class Hold:
    """A claim, and the time until which its lease counts as held."""

    claim: Claim
    ledger: AttemptLedger
    until: float


class Ledger(RuleBasedStateMachine):
    """Three workers and their sweeps. `owners` is the model: who holds which job."""

    clock: Clock
    jobs, holds = Bundle("jobs"), Bundle("holds")

    @initialize(target=holds)
    def begin(self) -> Any:
        with transaction() as session:
            for table in reversed(Record.metadata.sorted_tables):
                session.execute(table.delete())
        self.key = make_key()
        self.workers = [presence.register("distill") for _ in range(3)]
        self.owners: dict[str, Hold] = {}
        self.tokens: set[tuple[str, int]] = set()
        self.asked: dict[str, float] = {}
        self.final: dict[str, tuple[Any, ...]] = {}
        self.metrics: dict[tuple[str, int], tuple[float, int]] = {}
        for _ in range(2):
            self.submit(0)
        return multiple(*self.wake(0, 2))

    @rule(target=jobs, priority=st.integers(0, 2))
    def another(self, priority: int) -> str:
        return self.submit(priority)

    def submit(self, priority: int) -> str:
        return make_job(key_id=self.key, priority=priority)

    @rule(
        target=holds, seconds=st.sampled_from([0.0, 2.29, 11.03]), worker=st.integers(0, 2), messages=st.integers(1, 3)
    )
    def later(self, seconds: float, worker: int, messages: int) -> Any:
        """Advance the clock, sweep, and wake workers up."""
        self.clock.advance(seconds)
        self.sweep(messages)
        return multiple(*self.wake(worker, messages))

    def wake(self, worker: int, messages: int) -> list[Hold]:
        taken = [claim("distill", self.workers[worker]) for _ in range(messages)]
        holds = [
            Hold(one, AttemptLedger(one.id, one.attempt), self.clock.seconds + LEASE_SECONDS) for one in taken if one
        ]
        for hold in holds:
            assert hold.claim.id not in self.owners, "claimed although another holds it"
            assert (hold.claim.id, hold.claim.attempt) not in self.tokens
            assert hold.claim.id not in self.asked, "claimed although it is to be cancelled"
            self.tokens.add((hold.claim.id, hold.claim.attempt))
            self.owners[hold.claim.id] = hold
        return holds

    # numbers whose sums are no limit, since a database rounds its clock
    @rule(seconds=st.sampled_from([0.53, 3.07, 9.11]))
    def wait(self, seconds: float) -> None:
        self.clock.advance(seconds)

    def sweep(self, times: int) -> None:
        for _ in range(times):
            for duty in (upkeep.take_back_jobs, upkeep.cancel_queued, upkeep.cancel_overdue, upkeep.wake_idle_workers):
                duty()
        for job, hold in list(self.owners.items()):
            overdue = (
                job in self.asked and self.clock.seconds - self.asked[job] > GRACE_SECONDS + upkeep.OVERDUE_SECONDS
            )
            if hold.until < self.clock.seconds or overdue:
                del self.owners[job]
                assert get(Job, job).status != "running"

    @rule(hold=holds)
    def ask_to_cancel(self, hold: Hold) -> None:
        job = hold.claim.id
        row = get(Job, job)
        if not row.finished_at and row.cancel_requested_at is None:
            change(Job, job, cancel_requested_at=now())
            self.asked[job] = self.clock.seconds

    @rule(hold=holds)
    def beat(self, hold: Hold) -> None:
        if self._tried(hold, lambda: renew(hold.claim)):
            hold.until = self.clock.seconds + LEASE_SECONDS

    @rule(hold=holds, step=st.integers(1, 3), value=st.floats(0, 1))
    def report(self, hold: Hold, step: int, value: float) -> None:
        batch = EventBatch(notes=[Note("log", "a line"), Note("log", "another")], metrics={("loss", step): value})
        if self._tried(hold, lambda: hold.ledger.write(batch)):
            self.metrics[hold.claim.id, step] = value, hold.claim.attempt

    @rule(hold=holds, step=st.integers(1, 20))
    def checkpoint(self, hold: Hold, step: int) -> None:
        known = [row.step for row in rows(Checkpoint, job_id=hold.claim.id)]
        manifest = {"step": step, "parts": {"run": {"sha256": f"{step:064}", "size": 1}}}
        if self._tried(hold, lambda: hold.ledger.checkpoint(manifest)) and step > max(known, default=0):
            assert get(Job, hold.claim.id).losses == 0

    @rule(hold=holds)
    def succeed(self, hold: Hold) -> None:
        files = [
            File(name, f"jobs/{hold.claim.id}/{hold.claim.attempt}/{name}", "application/json", 1, "a" * 64)
            for name in NAMES
        ]
        job = hold.claim.id
        if self._tried(hold, lambda: hold.ledger.succeed({}, files, None)):
            if job in self.asked:
                assert get(Job, job).status == "running", "it succeeded although it was to be cancelled"
            else:
                self._ended(hold, "succeeded")

    @rule(hold=holds, how=st.sampled_from(["fail", "cancel", "drain", "postpone", "lose"]))
    def end(self, hold: Hold, how: str) -> None:
        error, job = ends.error("engine_crashed", "it crashed"), hold.claim.id
        writes: dict[str, Callable[[], Any]] = {
            "fail": lambda: hold.ledger.fail(error, None),
            "cancel": lambda: hold.ledger.cancel(None),
            "drain": lambda: hold.ledger.drain(None),
            "postpone": lambda: hold.ledger.postpone(error, 1.0, None),
            "lose": lambda: hold.ledger.lose(error, None),
        }
        losses = get(Job, job).losses
        if not self._tried(hold, writes[how]):
            return
        if how in ("drain", "postpone"):
            assert get(Job, job).losses == losses
        lost = (
            "cancelled"
            if job in self.asked
            else "failed"
            if losses + 1 >= configured().most_lost_attempts
            else "queued"
        )
        outcome = {"fail": "failed", "cancel": "cancelled", "lose": lost}
        self._ended(hold, outcome.get(how, "queued"))

    def _tried(self, hold: Hold, write: Callable[[], Any]) -> bool:
        """Whether a write was accepted; it must be if, and only if, it is the owner's."""
        try:
            write()
        except Taken:
            assert self.owners.get(hold.claim.id) is not hold, "a write of the owner was refused"
            return False
        assert self.owners.get(hold.claim.id) is hold, "a zombie wrote"
        return True

    def _ended(self, hold: Hold, status: str) -> None:
        del self.owners[hold.claim.id]
        assert get(Job, hold.claim.id).status == status

    @invariant()
    def jobs_are_whole(self) -> None:
        for job in rows(Job):
            running = job.status == JobStatus.RUNNING
            assert running == (job.id in self.owners) == (job.lease_owner is not None), job.status
            assert not running or job.attempt == self.owners[job.id].claim.attempt
            attempts = sorted(rows(Attempt, job_id=job.id), key=lambda row: row.number)
            assert [row.number for row in attempts] == list(range(1, job.attempt + 1))
            assert [row.number for row in attempts if row.outcome is None] == ([job.attempt] if running else [])
            seqs = sorted(row.seq for row in rows(Event, job_id=job.id))
            assert seqs == list(range(1, job.event_seq + 1))
            self._results_are_whole(job, attempts)
            told = job.status, job.event_seq, job.finished_at, job.attempt, job.version
            if JobStatus(job.status).final:
                assert self.final.setdefault(job.id, told) == told
            else:
                assert job.id not in self.final

    def _results_are_whole(self, job: Job, attempts: list[Attempt]) -> None:
        artifacts = rows(Artifact, job_id=job.id)
        winners = [row.number for row in attempts if row.outcome == "succeeded"]
        assert winners == ([job.attempt] if job.status == "succeeded" else [])
        assert {row.name for row in artifacts} == (NAMES if winners else set())
        assert {row.attempt for row in artifacts} == set(winners)
        found = {(row.job_id, row.step): (row.value, row.attempt) for row in rows(Metric, job_id=job.id)}
        assert found == {key: value for key, value in self.metrics.items() if key[0] == job.id}


@pytest.fixture
def machine(configure: Callable[..., Any], monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., None]]:
    configure(lease_seconds=LEASE_SECONDS, beat_seconds=1, sweep_seconds=1, cancel_grace_seconds=GRACE_SECONDS)
    monkeypatch.setattr(upkeep, "wake_up", lambda kind, count: True)

    def run(examples: int, steps: int) -> None:
        Ledger.clock = Clock()
        chosen = settings(
            max_examples=examples,
            stateful_step_count=steps,
            deadline=None,
            database=None,
            phases=[Phase.generate],  # a failure prints its steps; shrinking them takes minutes
            suppress_health_check=list(HealthCheck),
        )
        run_state_machine_as_test(Ledger, settings=chosen)  # type: ignore[no-untyped-call]

    yield run
    assert rows(Worker) != []


def test_the_invariants_hold_after_any_actions_of_workers_and_sweeps(
    migrated_sqlite: str, machine: Callable[..., None]
) -> None:
    machine(8, 25)


@pytest.mark.slow
def test_the_invariants_with_more_and_longer_runs(migrated: str, machine: Callable[..., None]) -> None:
    machine(40, 40)
