"""Faults and their times: a plan from a seed, and the thread that carries it out."""

import random
import signal
import subprocess
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass

import psutil

from tests.chaos.fleet import Fleet, Member
from tests.chaos.history import History
from tests.chaos.parts import QUICK, Parts
from tests.chaos.proxy import Mode

PROCESS_KINDS = ("kill_engine", "kill_worker", "kill_api", "stop_worker", "drain_worker")
DATA_KINDS = ("flip_part", "flip_canonical", "flip_artifact", "upgrade")
LEASE_SECONDS = float(QUICK["lease_seconds"])
SECONDS: dict[str, tuple[float, float]] = {
    "stop_worker": (LEASE_SECONDS + 1, LEASE_SECONDS + 4),
    "database_stops": (0.2, 4.0),
    "broker_dies": (0.2, 4.0),
    "storage_refuses": (20.0, 20.0),
    "storage_is_silent": (3.0, 10.0),
    "storage_is_slow": (5.0, 15.0),
    "storage_is_torn": (5.0, 15.0),
    "database_is_slow": (3.0, 10.0),
    "database_is_torn": (3.0, 10.0),
    "database_is_silent": (1.0, 6.0),
    "broker_is_slow": (3.0, 10.0),
    "broker_is_torn": (3.0, 10.0),
    "broker_is_silent": (1.0, 6.0),
    "disk_full": (3.0, 12.0),
}
"""Duration of the faults that end."""
SHARES = {"kill_engine": 4, "kill_worker": 3, "stop_worker": 2, "drain_worker": 2, "kill_api": 2, "flip_part": 2}
"""Frequency of a kind of fault in the deck from which faults are drawn; 1 for the others."""
MODES: dict[str, Mode] = {"refuses": "refusing", "is_silent": "silent", "is_slow": "slow", "is_torn": "torn"}
"""The network to a part, by the end of a fault's name."""
SEARCH_SECONDS = 4.0


@dataclass(frozen=True)
class Fault:
    """`chance` chooses the target and all other random details."""

    at: float
    kind: str
    chance: float
    seconds: float


def plan(dice: random.Random, kinds: Sequence[str], gap_seconds: float) -> Iterator[Fault]:
    """An endless plan, drawn from a deck that contains every kind, so that a short run has many kinds too."""
    at = 0.0
    while True:
        deck = [kind for kind in kinds for _ in range(SHARES.get(kind, 1))]
        dice.shuffle(deck)
        for kind in deck:
            at += 0.3 * gap_seconds + dice.expovariate(1 / (0.7 * gap_seconds))
            yield Fault(round(at, 2), kind, dice.random(), round(dice.uniform(*SECONDS.get(kind, (0.0, 0.0))), 2))


class Faults:
    """Carries out a plan in its own thread until stopped; then repairs everything. `answered_at` returns the time of the API's
    last answer, in this host's monotonic seconds; `most` is the maximum number of faults."""

    def __init__(
        self,
        plan: Iterator[Fault],
        fleet: Fleet,
        parts: Parts,
        history: History,
        answered_at: Callable[[], float],
        most: int | None = None,
        more: Mapping[str, Callable[[float], str | None]] | None = None,
    ):
        """`more` injects further kinds of faults; each gets the fault's chance."""
        self._more = more or {}
        self.done: Counter[str] = Counter()
        self._answered_at = answered_at
        self._plan, self._fleet, self._parts, self._history, self._most = plan, fleet, parts, history, most
        self._undo: dict[str, tuple[float, Callable[[], None]]] = {}
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._run, name="faults", daemon=True)
        self._begun = 0.0

    def start(self) -> None:
        self._begun = time.monotonic()
        self._thread.start()

    @property
    def spent(self) -> bool:
        """Whether all faults have been injected."""
        return self._most is not None and sum(self.done.values()) >= self._most

    def stop(self) -> None:
        """Stop injecting faults; at the end everything works again."""
        self._over.set()
        self._thread.join()
        for name in list(self._undo):
            self._finish(name)
        self._fleet.heal()
        self._history.note("healed")

    def _run(self) -> None:
        for fault in self._plan:
            while not self._over.wait(0.05):
                for name, (until, _) in list(self._undo.items()):
                    if time.monotonic() >= until:
                        self._finish(name)
                if time.monotonic() - self._begun >= fault.at and not self.spent:
                    break
            if self._over.is_set():
                return
            try:
                self._commit(fault)
            except (OSError, subprocess.SubprocessError, psutil.Error) as error:
                self._history.violation(f"the harness could not inject {fault.kind}: {error!r}")

    def _commit(self, fault: Fault) -> None:
        if fault.kind in self._more:
            detail = self._more[fault.kind](fault.chance)
        else:
            detail = getattr(self, f"_{fault.kind}", self._outage)(fault)
        if detail is None:
            self._history.note("skipped", kind=fault.kind)
            return
        self.done[fault.kind] += 1
        self._history.note("fault", kind=fault.kind, detail=detail, seconds=fault.seconds or None)

    def _finish(self, name: str) -> None:
        _, undo = self._undo.pop(name)
        undo()
        self._history.note("over", name=name)

    def _until(self, fault: Fault, name: str, undo: Callable[[], None]) -> None:
        self._undo[name] = (time.monotonic() + fault.seconds, undo)

    def _victim(self, fault: Fault, *kinds: str) -> Member | None:
        living = self._fleet.of(*kinds)
        return living[int(fault.chance * len(living))] if living else None

    def _kill_engine(self, fault: Fault) -> str | None:
        deadline = time.monotonic() + SEARCH_SECONDS
        while time.monotonic() < deadline and not self._over.is_set():
            engines = [
                engine
                for member in self._fleet.of("distill", "inspect")
                for engine in member.family()
                if _works_in(engine, str(self._parts.folder))
            ]
            if engines:
                engine = engines[int(fault.chance * len(engines))]
                with suppress(psutil.NoSuchProcess):  # it has just ended: there will be another engine
                    engine.send_signal(signal.SIGKILL)
                    return f"process {engine.pid}"
            time.sleep(0.02)
        return None

    def _kill_worker(self, fault: Fault) -> str | None:
        member = self._victim(fault, "distill", "distill", "inspect")
        if member is not None:
            self._fleet.kill(member, 0.2 + 2 * (fault.chance * 7 % 1))
        return member and member.name

    def _kill_api(self, fault: Fault) -> str | None:
        member = self._victim(fault, "api")
        if member is not None and self._answered_at() < member.started_at:
            return None  # an API that is killed before its first answer would never serve a request
        if member is not None:
            self._fleet.kill(member, 0.2 + (fault.chance * 7 % 1))
        return member and member.name

    def _drain_worker(self, fault: Fault) -> str | None:
        member = self._victim(fault, "distill", "inspect")
        if member is not None:
            self._fleet.drain(member, 0.2)
        return member and member.name

    def _stop_worker(self, fault: Fault) -> str | None:
        member = self._victim(fault, "distill", "inspect")
        if member is None:
            return None
        engines = member.family() if fault.chance * 7 % 1 < 0.3 else []
        self._fleet.stop(member)
        for engine in engines:
            _send(engine, signal.SIGSTOP)

        def wake() -> None:
            for engine in engines:
                _send(engine, signal.SIGCONT)
            self._fleet.wake(member)

        self._until(fault, member.name, wake)
        return member.name + (" and its engine" if engines else "")

    def _triple_messages(self, fault: Fault) -> str | None:
        if "disk" in self._undo:  # the embedded set's messages are files
            return None
        return f"{self._parts.triple_messages()} messages"

    def _delete_messages(self, fault: Fault) -> str:
        return f"{self._parts.delete_messages()} messages"

    def _database_stops(self, fault: Fault) -> str | None:
        if "database" in self._undo:
            return None
        self._parts.stop_database()
        self._until(fault, "database", self._parts.start_database)
        return "stopped at once"

    def _broker_dies(self, fault: Fault) -> str | None:
        if "broker" in self._undo:
            return None
        self._parts.stop_broker()
        self._until(fault, "broker", self._parts.start_broker)
        return "killed; it restarts empty"

    def _disk_full(self, fault: Fault) -> str | None:
        disks = self._parts.disks
        if "disk" in self._undo or not disks:
            return None
        disk = disks[int(fault.chance * len(disks))]
        self._parts.impair()  # a process that starts on a full disk may end with a sentence
        size = disk.fill()

        def free() -> None:
            disk.free()
            self._parts.repair()

        self._until(fault, "disk", free)
        return f"{disk.folder.name}: {size} bytes"

    def _outage(self, fault: Fault) -> str | None:
        part, _, state = fault.kind.partition("_")
        if part in self._undo:
            return None
        self._parts.set_mode(part, MODES[state])
        if part in self._parts.needed_to_start:
            self._parts.impair()

        def mend() -> None:
            self._parts.set_mode(part, "open")
            if part in self._parts.needed_to_start:
                self._parts.repair()

        self._until(fault, part, mend)
        return MODES[state]


def _works_in(process: psutil.Process, folder: str) -> bool:
    try:
        return process.cwd().startswith(folder)
    except (psutil.NoSuchProcess, psutil.AccessDenied):
        return False


def _send(process: psutil.Process, number: signal.Signals) -> None:
    try:
        process.send_signal(number)
    except psutil.NoSuchProcess:
        return
