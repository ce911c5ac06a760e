"""How an engine comes to be a process: in a fresh interpreter, or forked from one that has imported torch already."""

import math
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Protocol

import structlog

from models.settings import settings
from worker.engine.confinement import EngineLimits
from worker.engine.engine_fork import ForkServer, Unforkable, can_fork

MODULE = (sys.executable, "-P", "-m")
"""What a command begins with that can be forked; a module's name and its arguments follow."""
GPU_FILES = ("nvidia[0-9]*", "nvidiactl", "kfd", "dxg")
"""What lies in /dev where a GPU is."""
RETRY_SECONDS = 300.0
"""After a fork server that did not start, engines start in fresh interpreters for so long."""

log = structlog.get_logger(__name__)


class Started(Protocol):
    """A process in a session of its own, with pipes to it.

    `await_end` returns when it has ended and everything in its process group is dead; call it once, from a thread that
    outlives the process.
    """

    stdin: IO[bytes]
    stdout: IO[bytes]
    stderr: IO[bytes]

    def kill(self) -> None:
        """Kill it and its process group, now; nothing happens to one that is gone."""

    def await_end(self) -> None: ...

    def exit_code(self) -> int:
        """Its exit code, or minus the number of the signal that killed it; only after `await_end`."""


class Fresh:
    """A process in a fresh interpreter. Linux takes it down with the thread that has started it."""

    def __init__(self, command: Sequence[str], folder: Path, environment: Mapping[str, str], limits: EngineLimits):
        self._process = subprocess.Popen(
            command,
            cwd=folder,
            env=environment,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            start_new_session=True,
        )
        assert self._process.stdin and self._process.stdout and self._process.stderr
        self.stdin, self.stdout, self.stderr = self._process.stdin, self._process.stdout, self._process.stderr
        self._lock = threading.Lock()
        limits.try_to_impose(self._process.pid)

    def kill(self) -> None:
        with self._lock:
            if self._process.returncode is None:
                try:
                    os.killpg(self._process.pid, signal.SIGKILL)
                except ProcessLookupError:
                    log.debug("engine_gone")

    def await_end(self) -> None:
        if hasattr(os, "waitid"):
            os.waitid(os.P_PID, self._process.pid, os.WEXITED | os.WNOWAIT)
            self.kill()  # not reaped yet, so that its number is still its own: what it started goes with it
            return
        while self._process.poll() is None:
            time.sleep(0.05)
        try:
            os.killpg(self._process.pid, signal.SIGKILL)  # else a survivor would hold the pipes open
        except (ProcessLookupError, PermissionError):
            log.debug("engine_left_nobody_behind")

    def exit_code(self) -> int:
        with self._lock:
            return self._process.wait()


class Forks:
    """The fork server of this process: made when it is first wanted, and again when it has died."""

    def __init__(self) -> None:
        self._server: ForkServer | None = None
        self._lock = threading.Lock()
        self._wanted = self._training = False
        self._not_before = -math.inf

    @contextmanager
    def open(self, command: Sequence[str], training: bool = False) -> Iterator[None]:
        """Fork this process's engines from now on, where the setting and the machine allow that.

        A server is made at once. `training` says that its engines will train, and not inspect alone.
        """
        self._training, self._not_before = training, -math.inf
        self._wanted = tuple(command[:3]) == MODULE and forking()
        try:
            self._ready()
            yield
        finally:
            self._wanted = False
            if self._server is not None:
                self._server.end()
                self._server = None

    def start(
        self, command: Sequence[str], folder: Path, environment: Mapping[str, str], limits: EngineLimits
    ) -> Started:
        """Start a command."""
        server = self._ready() if tuple(command[:3]) == MODULE else None
        if server is not None:
            try:
                return server.start(command[3:], folder, environment, limits)
            except Unforkable as error:
                log.warning("engine_not_forked", error=str(error))
        return Fresh(command, folder, environment, limits)

    def _ready(self) -> ForkServer | None:
        with self._lock:
            if self._server is not None and self._server.broken:
                self._server.end()
                if self._server.failed:
                    log.warning("engines_start_afresh", reason="the fork server did not start", seconds=RETRY_SECONDS)
                    self._not_before = time.monotonic() + RETRY_SECONDS
                self._server = None
            if self._wanted and self._server is None and time.monotonic() >= self._not_before:
                self._server = ForkServer(self._training)
            return self._server


forks = Forks()


def forking() -> bool:
    """Whether engines are to be forked here."""
    wanted = settings().engine_start
    if wanted == "fork" and not can_fork():
        log.warning("engines_start_afresh", reason="engines can be forked on Linux alone, from 5.3 on")
    return can_fork() and (wanted == "fork" or (wanted == "auto" and not sees_gpu()))


def sees_gpu() -> bool:
    """Whether an engine may find a GPU here."""
    hidden = os.environ.get("CUDA_VISIBLE_DEVICES") == ""
    return not hidden and any(found for name in GPU_FILES for found in Path("/dev").glob(name))
