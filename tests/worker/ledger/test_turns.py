"""The order of claims, compared with a plain implementation of the rule; the cost does not depend on one key's rows."""

import random
import re
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from typing import Any

import pytest
from sqlalchemy import event, insert, text, update

from models.database import engine, now, reading, transaction
from models.records import Inspection, Job, Key, Worker
from models.records.columns import new_id
from models.scheduling.resources import Gpu, Machine, ResourceNeeds
from models.scheduling.turns import turns
from models.settings import settings
from tests.worker.scenes import change, claimed, make_job, make_key, make_upload, rows
from worker.ledger import presence
from worker.ledger.claims import claim
from worker.upkeep import upkeep

H100, OLD = Gpu("NVIDIA H100 80GB HBM3", 85.5), Gpu("Tesla T4", 16.1)
MACHINES = [Machine(), Machine(2), Machine(1, (H100,)), Machine(2, (H100, H100)), Machine(1, (OLD,))]
NEEDS = [
    ResourceNeeds(),
    ResourceNeeds(),
    ResourceNeeds(2),
    ResourceNeeds(1, "h100"),
    ResourceNeeds(2, "h100", 80),
    ResourceNeeds(1, None, 16),
]


@dataclass(frozen=True)
class Row:
    id: str
    key: str
    priority: int
    needs: ResourceNeeds
    due: bool


@dataclass
class World:
    """The state that the rule depends on, in plain Python."""

    waiting: list[Row]
    most: dict[str, int]
    running: Counter[str] = field(default_factory=Counter)
    served: dict[str, int] = field(default_factory=dict)

    def take(self, fits: Callable[[ResourceNeeds], bool]) -> str | None:
        """Apply the rule: take the best of the due, fitting and allowed rows, and update the state."""
        allowed = [
            row for row in self.waiting if row.due and fits(row.needs) and self.running[row.key] < self.most[row.key]
        ]
        if not allowed:
            return None
        best = min(
            allowed, key=lambda row: (-row.priority, self.running[row.key], self.served.get(row.key, -1), row.id)
        )
        self.waiting.remove(best)
        self.running[best.key] += 1
        self.served[best.key] = max(self.served.values(), default=0) + 1
        return best.id

    def line(self, fits: Callable[[ResourceNeeds], bool]) -> list[str]:
        """The order in which all rows would be claimed."""
        found = []
        while (identifier := self.take(fits)) is not None:
            found.append(identifier)
        return found


def make_world(draw: random.Random) -> World:
    keys = [make_key() for _ in range(draw.randint(1, 5))]
    most = {key: draw.choice([1, 2, 100]) for key in keys}
    world = World([], most)
    with transaction() as session:
        for key in keys:
            session.execute(update(Key).where(Key.id == key).values(limits={"running_jobs": most[key]}))
        for _ in range(draw.randint(0, 30)):
            row = Row(
                new_id("job"), draw.choice(keys), draw.choice([-1, 0, 0, 0, 7]), draw.choice(NEEDS), draw.random() < 0.9
            )
            world.waiting.append(row)
            values: dict[str, Any] = {"ready": True}
            if not row.due:
                values |= draw.choice(
                    [{"ready": False}, {"due_at": now() + 3600}, {"cancel_requested_at": now()}, {"deleted_at": now()}]
                )
            session.add(
                Job(id=row.id, key_id=row.key, name="job", spec={}, resolved={}, priority=row.priority,
                    needs=str(row.needs), **values)
            )  # fmt: skip
    return world


def worker_with(machine: Machine) -> str:
    identifier = presence.register("distill")
    change(Worker, identifier, about=machine.about())
    return identifier


@pytest.mark.parametrize("seed", range(4))
def test_claims_follow_the_plain_rule(both: None, seed: int) -> None:
    draw = random.Random(seed)
    world = make_world(draw)
    workers = [(machine, worker_with(machine)) for machine in MACHINES]
    taken: list[tuple[str, str]] = []
    key_of = {row.id: row.key for row in world.waiting}
    for _ in range(45):
        if taken and draw.random() < 0.4:
            ended, key = taken.pop(draw.randrange(len(taken)))
            change(Job, ended, status="succeeded")
            world.running[key] -= 1
        machine, worker = draw.choice(workers)
        wanted, found = world.take(machine.fits), claim("distill", worker)
        assert (found and found.id) == wanted
        if wanted is not None:
            taken.append((wanted, key_of[wanted]))


@pytest.mark.parametrize("seed", range(100, 102))
def test_the_order_of_the_queue_is_that_of_successive_claims(both: None, seed: int) -> None:
    draw = random.Random(seed)
    world = make_world(draw)
    for _ in range(draw.randint(0, 6)):
        worker = worker_with(Machine())
        assert world.take(Machine().fits) == ((found := claim("distill", worker)) and found.id)
    for fits in (lambda needs: True, MACHINES[3].fits):
        copy = replace(world, waiting=list(world.waiting), running=Counter(world.running), served=dict(world.served))
        with reading() as session:
            found_line = [turn.id for turn in turns(session, Job, fits)]
        assert found_line == copy.line(fits)


def test_a_key_with_thousands_of_jobs_does_not_delay_other_keys(both: None) -> None:
    greedy, modest, also = make_key(), make_key(), make_key()
    many(greedy, 2000)
    jobs = {make_job(key_id=modest), make_job(key_id=also)}
    worker = presence.register("distill")
    for _ in range(3):
        taken = claim("distill", worker)
        assert taken is not None
        jobs.discard(taken.id)
        change(Job, taken.id, status="succeeded")
    assert jobs == set()


def test_inspections_are_shared_fairly_too(both: None) -> None:
    greedy, modest = make_key(), make_key()
    for _ in range(3):
        make_upload(b"images", key_id=greedy)
    last = make_upload(b"images", key_id=modest)
    with transaction() as session:
        session.execute(update(Inspection).values(key_id=greedy))
        session.execute(update(Inspection).where(Inspection.subject_id == last).values(key_id=modest))
    assert last in [claimed("inspect").record.subject_id for _ in range(2)]


def test_concurrent_claims_respect_shares_and_limits(both: None) -> None:
    bounded, free = make_key(), make_key()
    change(Key, bounded, limits={"running_jobs": 2})
    many(bounded, 12)
    many(free, 12)
    workers = [presence.register("distill") for _ in range(6)]
    with ThreadPoolExecutor(len(workers)) as pool:
        list(pool.map(lambda worker: claim("distill", worker), workers))
    running = Counter(row.key_id for row in rows(Job, status="running"))
    assert running == {bounded: 2, free: 4}
    workers = [presence.register("distill") for _ in range(3)]
    with ThreadPoolExecutor(len(workers)) as pool:
        list(pool.map(lambda worker: claim("distill", worker), workers))
    assert Counter(row.key_id for row in rows(Job, status="running")) == {bounded: 2, free: 7}


def test_if_only_some_workers_fit_all_idle_ones_are_woken_up(both: None, monkeypatch: pytest.MonkeyPatch) -> None:
    sent: list[int] = []
    monkeypatch.setattr(upkeep, "wake_up", lambda kind, count: sent.append(count))
    monkeypatch.setattr(settings(), "sweep_seconds", 600.0)  # no second message for a row, even on a slow machine
    key = make_key()
    many(key, 1, needs=str(ResourceNeeds(1, "h100")))
    worker_with(Machine())
    upkeep.wake_idle_workers()
    assert sent == []  # no idle worker meets the needs
    for machine in (Machine(), Machine(1, (H100,))):
        worker_with(machine)
    upkeep.wake_idle_workers()
    assert sent == [3]
    many(key, 2)
    upkeep.wake_idle_workers()
    assert sent == [3, 2]
    change(Key, key, limits={"running_jobs": 1})
    many(key, 5)
    upkeep.wake_idle_workers()
    assert sent == [3, 2, 1]


def many(key_id: str, count: int, **values: Any) -> None:
    given = {"name": "job", "spec": {}, "resolved": {}, "key_id": key_id, "ready": True, "due_at": 0.0} | values
    with transaction() as session:
        session.execute(insert(Job), [given | {"id": new_id("job")} for _ in range(count)])


def plans_of(work: Callable[[], object]) -> list[str]:
    """The query plans of all statements on jobs that `work` runs."""
    asked: list[tuple[str, Any]] = []

    def note(connection: Any, cursor: Any, statement: str, parameters: Any, context: Any, many: bool) -> None:
        if "WITH RECURSIVE" in statement:
            asked.append((statement, parameters))

    event.listen(engine(), "before_cursor_execute", note)
    try:
        work()
    finally:
        event.remove(engine(), "before_cursor_execute", note)
    prefix = "EXPLAIN (ANALYZE, BUFFERS) " if engine().dialect.name == "postgresql" else "EXPLAIN QUERY PLAN "
    with engine().connect() as connection:
        return [
            "\n".join(str(row[-1]) for row in connection.exec_driver_sql(prefix + statement, parameters))
            for statement, parameters in asked
        ]


@pytest.mark.parametrize("count", [20_000, pytest.param(300_000, marks=pytest.mark.slow)])
def test_a_claim_uses_only_indexes(both: None, count: int) -> None:
    make_job(priority=-1)
    greedy = make_key()
    for _ in range(count // 10_000):
        many(greedy, 10_000)
    many(greedy, 2000, status="succeeded")
    if engine().dialect.name == "postgresql":
        with transaction() as session:
            session.execute(text("ANALYZE jobs"))
    worker = presence.register("distill")
    plans = plans_of(lambda: claim("distill", worker))
    assert len(plans) >= 2
    for plan in plans:
        assert "Seq Scan on jobs" not in plan and "SCAN jobs" not in plan, plan
        assert "Sort" not in plan and "TEMP B-TREE FOR ORDER" not in plan, plan
        assert "ix_jobs_status_ready_needs_key_id_rank_id" in plan
        pages = [int(count) for count in re.findall(r"Buffers: shared hit=(\d+)", plan)]
        assert max(pages, default=0) < 200, plan
