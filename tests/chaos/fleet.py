"""The service's processes: started, killed, stopped, drained, and restarted as an operator's supervisor would do."""

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import psutil

from tests.chaos.history import History

ROOT = Path(__file__).parents[2]
LOOK_SECONDS = 0.1
PAUSE_SECONDS = 0.5
"""Seconds between the death of a process and its restart."""


class Member:
    """One process of the service, through all its restarts. `tree` holds the code that it starts from."""

    def __init__(self, name: str, arguments: Sequence[str], environment: Mapping[str, str], log: Path):
        self.name, self.kind = name, name.partition("-")[0]
        self._arguments, self._environment, self._log = arguments, environment, log
        self.tree = ROOT
        self.process: subprocess.Popen[bytes] | None = None
        self.expected = False
        self.stopped = False
        self.draining_since: float | None = None
        self.started_at = self.due = 0.0

    @property
    def lives(self) -> bool:
        """Whether it runs and no fault is using it."""
        alive = self.process is not None and self.process.poll() is None
        return alive and not self.stopped and not self.expected

    def start(self) -> None:
        self.expected, self.stopped, self.draining_since, self.started_at = False, False, None, time.monotonic()
        with self._log.open("ab") as log:
            self.process = subprocess.Popen(
                [sys.executable, *self._arguments],
                cwd=self.tree, env=self._environment, stdin=subprocess.DEVNULL, stdout=log, stderr=log,
            )  # fmt: skip

    def send(self, number: signal.Signals) -> None:
        """Send a signal, if the process exists."""
        if self.process is not None and self.process.poll() is None:
            self.process.send_signal(number)

    def family(self) -> list[psutil.Process]:
        """All its descendants."""
        try:
            assert self.process
            return psutil.Process(self.process.pid).children(recursive=True)
        except psutil.NoSuchProcess:
            return []

    def last_words(self) -> str:
        return self._log.read_text(errors="replace")[-1500:]


class Fleet:
    """All members, and a thread that restarts dead ones. `excused`, called with a start time (in this host's monotonic
    seconds), says whether a process started then may have died because of a fault."""

    def __init__(self, history: History, drain_seconds: float, excused: Callable[[float], bool]):
        self.members: list[Member] = []
        self._history, self._drain_seconds, self._excused = history, drain_seconds, excused
        self.ended = False
        self._over, self._lock = threading.Event(), threading.RLock()
        self._thread = threading.Thread(target=self._tend, name="fleet", daemon=True)

    def add(self, member: Member) -> None:
        member.start()
        with self._lock:
            self.members.append(member)

    def watch(self) -> None:
        """From now on, restart members that die."""
        self._thread.start()

    def of(self, *kinds: str) -> list[Member]:
        """The running members of these kinds that no fault is using."""
        with self._lock:
            return [member for member in self.members if member.kind in kinds and member.lives]

    def kill(self, member: Member, pause_seconds: float) -> None:
        """kill -9, and a restart after a pause; nothing if it is being killed or drained already."""
        with self._lock:
            if not member.lives:
                return
            member.expected, member.due = True, time.monotonic() + pause_seconds
            member.send(signal.SIGKILL)

    def drain(self, member: Member, pause_seconds: float) -> None:
        """SIGTERM, and a restart after its end and a pause; nothing if it is being killed or drained already."""
        with self._lock:
            if not member.lives:
                return
            member.expected, member.draining_since = True, time.monotonic()
            member.due = member.draining_since + pause_seconds
            member.send(signal.SIGTERM)

    def stop(self, member: Member) -> None:
        """SIGSTOP."""
        with self._lock:
            member.stopped = True
            member.send(signal.SIGSTOP)

    def wake(self, member: Member) -> None:
        """SIGCONT."""
        with self._lock:
            member.send(signal.SIGCONT)
            member.stopped = False

    def heal(self) -> None:
        """Resume stopped members and start dead ones, until all run."""
        for member in self.members:
            if member.stopped:
                self.wake(member)
        deadline = time.monotonic() + 60
        while len(self.of("api", "distill", "inspect")) < len(self.members) and time.monotonic() < deadline:
            time.sleep(LOOK_SECONDS)

    def end(self) -> None:
        """SIGTERM for all; a member that has not ended in time is killed, which is a violation."""
        self.ended = True
        self._over.set()
        if self._thread.ident is not None:
            self._thread.join()
        for member in self.members:
            member.send(signal.SIGCONT)
            member.send(signal.SIGTERM)
        deadline = time.monotonic() + self._drain_seconds
        for member in self.members:
            assert member.process
            try:
                member.process.wait(max(0.1, deadline - time.monotonic()))
            except subprocess.TimeoutExpired:
                self._history.violation(f"{member.name} had not ended {self._drain_seconds:.0f} s after SIGTERM")
                member.process.kill()
                member.process.wait()

    def _tend(self) -> None:
        while not self._over.wait(LOOK_SECONDS):
            with self._lock:
                for member in self.members:
                    self._look_after(member)

    def _look_after(self, member: Member) -> None:
        assert member.process
        now, code = time.monotonic(), member.process.poll()
        if code is None:
            self._hurry(member, now)
        elif not member.expected:
            self._report_death(member, code)
            member.expected, member.due = True, now + PAUSE_SECONDS
        else:
            if member.draining_since is not None:
                self._report_drain(member, code, now - member.draining_since)
            if now >= member.due:
                member.start()
                self._history.note("start", member=member.name)

    def _hurry(self, member: Member, now: float) -> None:
        if member.draining_since is not None and now - member.draining_since > self._drain_seconds:
            self._history.violation(f"{member.name} had not ended {self._drain_seconds:.0f} s after SIGTERM")
            member.draining_since = None
            member.send(signal.SIGKILL)

    def _report_drain(self, member: Member, code: int, seconds: float) -> None:
        self._history.note("drained", member=member.name, code=code, seconds=round(seconds, 2))
        member.draining_since = None
        # before its handlers are installed, SIGTERM ends a process in the default way
        if code not in (0, -signal.SIGTERM) and not self._excused(member.started_at):
            self._history.violation(f"{member.name} ended with {code} after SIGTERM: {member.last_words()}")

    def _report_death(self, member: Member, code: int) -> None:
        excused = self._excused(member.started_at)
        self._history.note("death", member=member.name, code=code, excused=excused)
        if not excused:
            self._history.violation(f"{member.name} ended on its own with {code}: {member.last_words()}")


def become_subreaper() -> None:
    """Make this process the new parent of every orphaned descendant, so that none is missed."""
    if sys.platform == "linux":
        import ctypes

        pr_set_child_subreaper = 36
        ctypes.CDLL(None, use_errno=True).prctl(pr_set_child_subreaper, 1, 0, 0, 0)


def left_over(spared: Sequence[int]) -> list[str]:
    """Running descendants of this process, without `spared` and their descendants."""
    mine = psutil.Process(os.getpid())
    kept = set(spared) | {child.pid for pid in spared if psutil.pid_exists(pid) for child in _children(pid)}
    found = []
    for process in mine.children(recursive=True):
        try:
            if process.pid not in kept and process.status() != psutil.STATUS_ZOMBIE:
                found.append(f"{process.pid} {' '.join(process.cmdline())[:200]}")
        except psutil.NoSuchProcess:
            continue
    return found


def _children(pid: int) -> list[psutil.Process]:
    try:
        return psutil.Process(pid).children(recursive=True)
    except psutil.NoSuchProcess:
        return []
