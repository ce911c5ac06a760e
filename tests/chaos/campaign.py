"""One campaign: a whole service on one set of parts, its users, faults from a seed, and the result."""

import math
import random
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sqlalchemy.orm import Session

from models.database import make_engine
from models.records import Attempt, Dataset, Event, Teacher
from models.settings import Settings
from models.storage.opening import open_storage
from tests.chaos import checker, undisturbed
from tests.chaos.clocks import can_be_wrong
from tests.chaos.faults import DATA_KINDS, PROCESS_KINDS, Faults, plan
from tests.chaos.fleet import Fleet, Member, left_over
from tests.chaos.flips import Flips
from tests.chaos.history import History
from tests.chaos.load import Users, orders
from tests.chaos.parts import QUICK, Parts
from tests.chaos.specs import VARIANTS, needs_data
from tests.chaos.upgrade import Upgrades
from tests.integration.whole import eventually, until_none_are_left, write_inputs
from tests.servers import _free_ports

START_SECONDS = 120.0
DRAIN_SECONDS = 30.0
SETTLE_SECONDS = 180.0
"""After the last fault a job must end every so many seconds, until all have ended."""
SWEEP_SECONDS = 120.0
"""Further seconds within which the sweeps must remove everything."""


@dataclass(frozen=True)
class Size:
    """The size of a campaign: jobs, workers that distil, workers that inspect, mean seconds between two faults, maximum number
    and duration of faults, and variants of jobs. A `hasty` campaign does not wait for data that is removed ten leases after a job's end."""

    jobs: int
    distill: int = 3
    inspect: int = 1
    gap_seconds: float = 4.0
    faults: int | None = None
    fault_seconds: float = 480.0
    final_seconds: float = 600.0
    variants: tuple[str, ...] = tuple(VARIANTS)
    hasty: bool = False
    kinds: tuple[str, ...] = ()
    """Kinds of faults; empty: all that the parts can have."""


class Campaign:
    """Runs one campaign on its parts, and reports on it. `twins` holds the students of undisturbed runs
    by variant; missing ones are made and added."""

    def __init__(self, parts: Parts, seed: int, size: Size, twins: dict[str, str]):
        self.parts, self.seed, self.size, self._twins = parts, seed, size, twins
        self.history = History(parts.folder / "history.jsonl")
        self._orders = orders(random.Random(f"orders {seed}"), size.jobs, size.variants)

    def run(self) -> dict[str, Any]:
        """Run the campaign; returns the report, whose `guarantees` is `kept` or `broken`."""
        started_at = time.monotonic()
        with ExitStack() as stack:
            stack.callback(self.history.close)
            parts = stack.enter_context(self.parts)
            parts.clock_of = self._wrong_clock()
            servers = [*parts.pids, *_others()]
            fleet = stack.enter_context(self._fleet())
            direct = Settings(_env_file=None, **self.parts.direct_settings(), data=parts.data("api"))
            self._storage, self._engine = open_storage(direct), make_engine(direct.database)
            stack.callback(self._engine.dispose)
            inputs = write_inputs(parts.folder / "inputs")
            users = Users(self._url, (parts.data("api") / "key").read_text().strip(), inputs, self.history)
            stack.callback(users.close)
            done = self._disturb(users, fleet)
            broken = self._broken_rules(users, fleet)
            fleet.end()
            broken |= self._leftovers([*servers, *parts.pids])
            broken |= {"seen_during_the_campaign": self.history.violations} if self.history.violations else {}
            return self._report(done, users, broken, time.monotonic() - started_at)

    @property
    def _url(self) -> str:
        return f"http://127.0.0.1:{self._port}"

    @contextmanager
    def _fleet(self) -> Iterator[Fleet]:
        [self._port] = _free_ports(1)
        fleet = Fleet(self.history, DRAIN_SECONDS, self.parts.was_impaired_since)
        try:
            self._migrate()
            fleet.add(api := self.parts.member("api", self._port))
            key = self.parts.data("api") / "key"
            eventually(lambda: key.exists() or not api.lives, "the API makes its key", START_SECONDS)
            if not key.exists():
                raise RuntimeError(f"the API does not start: {api.last_words()}")
            for kind, count in (("inspect", self.size.inspect), ("distill", self.size.distill)):
                for number in range(1, count + 1):
                    fleet.add(self.parts.member(f"{kind}-{number}", self._port))
            fleet.watch()
            yield fleet
        finally:
            if not fleet.ended:
                fleet.end()

    def _migrate(self) -> None:
        """Migrate the database, as an operator does once for every version."""
        member = Member(
            "migrate", ("-m", "models.migrate"), self.parts.environment("api", 0), self.parts.folder / "log"
        )
        member.start()
        assert member.process
        if member.process.wait(START_SECONDS) != 0:
            raise RuntimeError(f"the database cannot be migrated: {member.last_words()}")

    def _disturb(self, users: Users, fleet: Fleet) -> Counter[str]:
        """Submit jobs and inject faults, stop the faults, and wait until no job is open."""
        inputs = users.inputs()
        eventually(lambda: users.ready({kind: inputs[kind] for kind in inputs}), "the inputs are inspected")
        self._twins |= self._undisturbed(users, inputs)
        self.history.note("begins", seed=self.seed, set=self.parts.name, jobs=self.size.jobs)
        kinds = self.size.kinds or (*PROCESS_KINDS, *DATA_KINDS, *self.parts.kinds)
        planned = plan(random.Random(f"faults {self.seed}"), kinds, self.size.gap_seconds)
        self._flips = Flips(self._engine, self._storage, users.http, fleet, self.history, tuple(inputs.values()))
        upgrades = Upgrades(self.parts, fleet, self.history, self._engine)
        more = self._flips.kinds | {"upgrade": upgrades.upgrade}
        faults = Faults(planned, fleet, self.parts, self.history, lambda: users.answered_at, self.size.faults, more)
        faults.start()
        submitting = threading.Thread(target=users.submit_all, args=(self._orders, inputs), daemon=True)
        submitting.start()
        self._await_most(submitting, users, faults)
        faults.stop()
        upgrades.finish()
        submitting.join()
        self.history.note("all_submitted", open=users.open)
        if left := until_none_are_left(users.count_open, SETTLE_SECONDS):
            self.history.violation(f"{left} jobs are open, and none has ended for {SETTLE_SECONDS:.0f} s")
        users.rest()
        self.history.note("all_ended")
        return faults.done

    def _wrong_clock(self) -> tuple[str, int] | None:
        """One worker whose clock is an hour off, unless all processes read one clock or a clock cannot be moved here."""
        if self.parts.name == "embedded" or not can_be_wrong():
            return None
        dice = random.Random(f"clock {self.seed}")
        return f"distill-{dice.randint(1, self.size.distill)}", dice.choice((-3600, 3600))

    def _await_most(self, submitting: threading.Thread, users: Users, faults: Faults) -> None:
        """Wait until all jobs are submitted and nearly all have ended, or until the faults or their time are used up."""
        over = time.monotonic() + self.size.fault_seconds
        while submitting.is_alive() or users.count_open() > self.size.distill:
            if time.monotonic() > over or (faults.spent and not submitting.is_alive()):
                return
            time.sleep(0.5)

    def _undisturbed(self, users: Users, inputs: dict[str, str]) -> dict[str, str]:
        missing = {order.variant for order in self._orders} - self._twins.keys()
        resolved = {}
        for variant in sorted(missing):
            own = inputs if needs_data(variant) else {"teacher": inputs["teacher"]}
            resolved[variant] = users.send("POST", "/jobs:validate", json=VARIANTS[variant] | own).json()["resolved"]
        teacher = users.send("GET", f"teachers/{inputs['teacher']}").json()
        with Session(self._engine) as session:
            rows = {"teacher": Teacher, "dataset": Dataset}
            blobs = {kind: str(session.get_one(rows[kind], id).blob_key) for kind, id in inputs.items()}
        return undisturbed.twins(resolved, teacher, self._storage, blobs, self.parts.folder / "undisturbed")

    def _world(self, users: Users) -> checker.World:
        wanted = [
            checker.Wanted(order.number, order.variant, frozenset(order.answers), order.cancel_accepted)
            for order in self._orders
        ]
        return checker.World(
            users.http, self._engine, self._storage, wanted, self._twins, self.size.final_seconds,
            time.time() - 11 * float(QUICK["lease_seconds"]) if self.size.hasty else math.inf,
            frozenset(self._flips.damaged),
        )  # fmt: skip

    def _broken_rules(self, users: Users, fleet: Fleet) -> dict[str, list[str]]:
        """The broken rules. The sweeps get their time first; if that is not enough, every worker is restarted, since a worker
        scans all of storage at startup."""
        broken = checker.broken(self._world(users), checker.RULES)
        grace_seconds = float(QUICK["keep_orphans_hours"]) * 3600 + 10 * float(QUICK["lease_seconds"]) + 5
        if not self._clears(users, grace_seconds):
            for member in fleet.of("inspect", "distill"):
                fleet.drain(member, 0.0)
            self._clears(users, SWEEP_SECONDS)
        return broken | checker.broken(self._world(users), checker.IN_THE_END)

    def _clears(self, users: Users, seconds: float) -> bool:
        deadline = time.monotonic() + seconds
        while checker.broken(self._world(users), checker.IN_THE_END) or self._half_written():
            if time.monotonic() > deadline:
                return False
            time.sleep(2)
        return True

    def _leftovers(self, spared: list[int]) -> dict[str, list[str]]:
        """Leftovers on this machine: processes, folders of attempts, half-written blobs."""
        found = [f"a process is left over: {process}" for process in left_over(spared)]
        for work in self.parts.folder.rglob("work"):
            found += [f"a folder of an attempt is left over: {path}" for path in work.glob("*/*")]
        found += [f"a half-written blob is left over: {path}" for path in self._half_written()]
        return {"nothing_is_left": found} if found else {}

    def _half_written(self) -> list[Path]:
        return list(self.parts.folder.rglob("blobs/**/*#*"))

    def _report(
        self, done: Counter[str], users: Users, broken: dict[str, list[str]], seconds: float
    ) -> dict[str, Any]:  # fmt: skip
        world = self._world(users)
        rows = world.job_rows.values()
        attempts = world.rows(Attempt)
        taken = [row for row in attempts if (row.error or {}).get("code") == "worker_lost"]
        started = [row for row in world.rows(Event) if row.message.startswith("the engine has started from step")]
        drains = [line for line in self.history.lines() if line["what"] == "drained"]
        return {
            "set": self.parts.name,
            "seed": self.seed,
            "guarantees": "broken" if broken else "kept",
            "seconds": round(seconds),
            "jobs": dict(Counter(row.status for row in rows)),
            "posts": users.posts,
            "uploads": len(world.rows(Teacher)),
            "faults": dict(sorted(done.items())),
            "wrong_clock": "{} by {} s".format(*self.parts.clock_of) if self.parts.clock_of else "none",
            "jobs_failed_by_damaged_inputs": sum(row.status == "failed" for row in rows),
            "damaged_downloads_refused": self._flips.refused,
            "attempts": dict(Counter(str(row.outcome) for row in attempts)),
            "leases_taken_back": len(taken),
            "resumes": len(started),
            "longest_drain_seconds": max((line["seconds"] for line in drains), default=0),
            "most_attempts_of_a_job": max((row.attempt for row in rows), default=0),
            "longest_seconds_to_final": round(
                max(((row.finished_at or 0) - row.created_at for row in rows), default=0)
            ),
            "poison": sum((row.error or {}).get("code") == "poison" for row in rows),
            "cancels_that_came_too_late": self._late_cancels(world),
            "students_compared": sum(row.status == "succeeded" for row in rows),
            "broken": broken,
        }

    def _late_cancels(self, world: checker.World) -> int:
        asked = {job for order in self._orders if order.cancel_accepted for job in order.answers}
        return sum(world.job_rows[job].status == "succeeded" for job in asked if job in world.job_rows)


def _others() -> list[int]:
    """Descendants of this process that were started before the service, such as S3."""
    import psutil

    return [process.pid for process in psutil.Process().children(recursive=True)]
