"""Starting an engine: forked from a process that has imported torch, or in a fresh interpreter; both by a fork server if possible,
which also ends what an engine leaves behind."""

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
"""Beginning of a command that can be forked; a module's name and its arguments follow."""
GPU_FILES = ("nvidia[0-9]*", "nvidiactl", "kfd", "dxg")
"""Names of device files of GPUs in /dev."""
RETRY_SECONDS = 300.0
"""Time before another attempt after a fork server has failed to start; until then, engines start in fresh interpreters."""

log = structlog.get_logger(__name__)


class Started(Protocol):
    """A process in a session of its own, with pipes to it.

    `await_end` returns when the process and its process group are dead. Call it once, from a thread that outlives the
    process.
    """

    stdin: IO[bytes]
    stdout: IO[bytes]
    stderr: IO[bytes]
    out_of_memory: bool
    """Whether its control group used too much memory; known after `await_end`."""

    def kill(self) -> None:
        """Kill the process and its group immediately; does nothing if it has ended."""

    def await_end(self) -> None: ...

    def exit_code(self) -> int:
        """The exit code, or the negative number of the signal that killed the process; call it after `await_end`."""


class Fresh:
    """A process in a fresh interpreter, without a fork server. Linux kills it when the thread that started it ends."""

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
        self.stdin = self._process.stdin
        self.stdout = self._process.stdout
        self.stderr = self._process.stderr
        self._lock = threading.Lock()
        self.out_of_memory = False
        self._group = limits.try_to_impose(self._process.pid)

    def kill(self) -> None:
        with self._lock:
            if self._process.returncode is None:
                try:
                    os.killpg(self._process.pid, signal.SIGKILL)
                except ProcessLookupError:
                    log.debug("engine_gone")

    def await_end(self) -> None:
        self._await_end()
        if self._group is not None:
            self.out_of_memory = self._group.end()

    def _await_end(self) -> None:
        if hasattr(os, "waitid"):
            os.waitid(os.P_PID, self._process.pid, os.WEXITED | os.WNOWAIT)
            self.kill()  # kills the group before it is reaped, so that the pid cannot have been reused
            return
        while self._process.poll() is None:
            time.sleep(0.05)
        try:
            os.killpg(self._process.pid, signal.SIGKILL)  # else a surviving child would hold the pipes open
        except (ProcessLookupError, PermissionError):
            log.debug("engine_has_no_children_left")

    def exit_code(self) -> int:
        with self._lock:
            return self._process.wait()


class Forks:
    """The fork server of this process: started at the first use, and again after it has died."""

    def __init__(self) -> None:
        self._server: ForkServer | None = None
        self._lock = threading.Lock()
        self._wanted = False
        self._training = False
        self._fresh = False
        self._not_before = -math.inf

    @contextmanager
    def open(self, command: Sequence[str], training: bool = False) -> Iterator[None]:
        """A context in which a fork server starts the engines, if the machine allows that.

        The server starts immediately. `training`: its engines train, instead of only inspecting. Whether it has imported torch
        depends on the setting and the machine.
        """
        self._training = training
        self._fresh = not forking()
        self._not_before = -math.inf
        self._wanted = tuple(command[:3]) == MODULE and can_fork()
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
        """Start a command: by the fork server if there is one, else in a fresh interpreter."""
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
                    reason = "the fork server did not start"
                    log.warning("engines_not_forked", reason=reason, seconds=RETRY_SECONDS)
                    self._not_before = time.monotonic() + RETRY_SECONDS
                self._server = None
            if self._wanted and self._server is None and time.monotonic() >= self._not_before:
                self._server = ForkServer(self._training, self._fresh)
            return self._server


forks = Forks()


def forking() -> bool:
    """Whether engines are forked on this machine."""
    wanted = settings().engine_start
    if wanted == "fork" and not can_fork():
        log.warning("engines_not_forked", reason="forking engines requires Linux 5.3 or later")
    return can_fork() and (wanted == "fork" or (wanted == "auto" and not sees_gpu()))


def sees_gpu() -> bool:
    """Whether an engine may see a GPU on this machine."""
    hidden = os.environ.get("CUDA_VISIBLE_DEVICES") == ""
    return not hidden and any(found for name in GPU_FILES for found in Path("/dev").glob(name))
