"""What every set of parts has: database, broker and storage of one campaign, and their outages."""

import os
import threading
import time
from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from tests.chaos.clocks import clock_variables
from tests.chaos.disks import Disk, can_mount
from tests.chaos.fleet import Member
from tests.chaos.proxy import Mode

QUICK = {
    "lease_seconds": 4,
    "beat_seconds": 0.8,
    "sweep_seconds": 1,
    "checkpoint_seconds": 0.3,
    "engine_threads": 1,
    "device": "cpu",
    "most_lost_attempts": 30,
    "keep_orphans_hours": 20 / 3600,
    "requests_a_minute": 100_000,
    "queued_jobs": 100_000,
    "free_bytes": 2**24,
}
"""Lease and heartbeat of seconds; and no job may be given up, so that a single failure is a violation."""
AFTERMATH_SECONDS = 8.0


class Parts(ABC):
    """Database, broker and storage of one campaign, in `folder`."""

    name: str
    kinds: Sequence[str]
    """Its outages, in addition to those of processes."""

    needed_to_start: tuple[str, ...] = ("database",)
    """The parts without which a process ends with a sentence when it starts."""

    def __init__(self, folder: Path, seed: int = 0):
        self.folder, self.seed = folder, seed
        self.settings: dict[str, object] = dict(QUICK)
        self.disks: list[Disk] = []
        self.clock_of: tuple[str, int] | None = None
        """A process whose clock is wrong, and by how many seconds."""
        self._impairments = 0
        self._lock = threading.Lock()
        self._whole_again_at = -1e9

    @abstractmethod
    def __enter__(self) -> "Parts": ...

    @abstractmethod
    def __exit__(self, *exception: object) -> None: ...

    @abstractmethod
    def data(self, member: str) -> Path:
        """A process's data folder."""

    @property
    def pids(self) -> list[int]:
        """The servers' processes."""
        return []

    def member(self, name: str, port: int) -> Member:
        """Start a process of the service on these parts."""
        kind = name.partition("-")[0]
        arguments = ("-m", "api") if kind == "api" else ("-m", "worker", "--kind", kind)
        return Member(name, arguments, self.environment(name, port), self.folder / f"{name}.log")

    def environment(self, member: str, port: int) -> dict[str, str]:
        """Environment variables of a process of the service."""
        chosen = self.settings | {"data": self.data(member), "port": port}
        others = {key: value for key, value in os.environ.items() if not key.startswith("DISTILL_")}
        wrong = clock_variables(self.clock_of[1], self.folder) if self.clock_of and self.clock_of[0] == member else {}
        return others | {f"DISTILL_{key.upper()}": str(value) for key, value in chosen.items()} | wrong

    def was_impaired_since(self, started_at: float) -> bool:
        """Whether a process that started at that time may have found what it needs to start unavailable."""
        return self._impairments > 0 or self._whole_again_at > started_at - AFTERMATH_SECONDS

    def impair(self) -> None:
        """From now on a process may fail to start."""
        with self._lock:
            self._impairments += 1

    def repair(self) -> None:
        """The end of an impairment."""
        with self._lock:
            self._impairments -= 1
        self._whole_again_at = time.monotonic()

    @contextmanager
    def impaired(self) -> Iterator[None]:
        """A block during which a process may fail to start."""
        self.impair()
        try:
            yield
        finally:
            self.repair()

    def direct_settings(self) -> dict[str, object]:
        """Settings that reach database and storage past the outages of a campaign."""
        return dict(self.settings)

    def add_disk(self, folder: Path) -> None:
        """Put a folder on a disk of its own, if that is possible here."""
        if can_mount():
            disk = Disk(folder)
            disk.mount()
            self.disks.append(disk)

    def remove_disks(self) -> None:
        while self.disks:
            self.disks.pop().unmount()

    def stop_database(self) -> None:
        raise NotImplementedError

    def start_database(self) -> None:
        raise NotImplementedError

    def stop_broker(self) -> None:
        raise NotImplementedError

    def start_broker(self) -> None:
        raise NotImplementedError

    def set_mode(self, part: str, mode: Mode) -> None:
        """The state of the network to `storage`, `database` or `broker`."""
        raise NotImplementedError

    @abstractmethod
    def triple_messages(self) -> int:
        """Send every waiting message two more times; returns how many waited."""

    @abstractmethod
    def delete_messages(self) -> int:
        """Delete every waiting message; returns how many."""
