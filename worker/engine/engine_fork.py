"""Engines forked from a process that has imported torch (worker/distillation/process/fork_server.py); Linux only.

The server is this process's child, and the engines are the server's. So an engine is killed by its process descriptor,
never by a number that may have become another's, and it is the server that says how it ended.
"""

import json
import os
import select
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import IO

import structlog

from worker.engine.confinement import EngineLimits, environment

COMMAND = (sys.executable, "-P", "-m", "worker.distillation.process.fork_server")
START_SECONDS = 60.0
"""A server has so long to start an engine; the first one waits until torch is imported."""
REPORT_SECONDS = 10.0
"""An engine that has ended is heard of within so long, or its server is hung."""
MESSAGE_BYTES = 4096
LOST = -signal.SIGKILL
"""The exit code of an engine that was lost with its server."""
PIDFD_SIGNAL_PROCESS_GROUP = 4

log = structlog.get_logger(__name__)


class Unforkable(Exception):
    """The fork server cannot be asked; nothing was started."""


class ServerLost(Exception):
    """The fork server has died, or is silent for too long."""


def can_fork() -> bool:
    """Whether this system has what it takes."""
    if sys.platform != "linux":
        return False
    try:
        os.close(os.pidfd_open(os.getpid()))
    except OSError:
        return False
    return True


class ForkServer:
    """A fork server, from its start to its end. Linux takes it down with the thread that has made this.

    `proven` says that it has started an engine, `broken` that it will start no more, `failed` that it never could.
    """

    def __init__(self, training: bool = False) -> None:
        self.proven = self.failed = self._given_up = False
        self._control, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with theirs:
            self._process = subprocess.Popen(
                [*COMMAND, str(theirs.fileno()), *(["--training"] if training else [])],
                cwd="/",
                env=environment(Path("/"), None, gpu=False)
                | {"OMP_WAIT_POLICY": "PASSIVE", "OPENBLAS_NUM_THREADS": "1"},
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                pass_fds=(theirs.fileno(),),
                start_new_session=True,
            )
        self._lock = threading.Lock()

    @property
    def pid(self) -> int:
        return self._process.pid

    @property
    def broken(self) -> bool:
        with self._lock:
            return self._given_up or self._process.poll() is not None

    def start(
        self, command: Sequence[str], folder: Path, environment: Mapping[str, str], limits: EngineLimits
    ) -> "Forked":
        """Ask for an engine; it comes to life in its `await_end`. `command` is a module's name and its arguments.

        Raises:
            Unforkable: the server is gone.
        """
        module, *arguments = command
        request = {"module": module, "arguments": arguments, "folder": str(folder), "environment": dict(environment)}
        return Forked(self, json.dumps(request).encode(), limits)

    def ask(self, request: bytes, descriptors: Sequence[int]) -> None:
        """Send a request.

        Raises:
            Unforkable: the server is gone.
        """
        try:
            socket.send_fds(self._control, [request], descriptors, socket.MSG_NOSIGNAL | socket.MSG_DONTWAIT)
        except OSError as error:
            raise Unforkable(f"the fork server does not listen: {error}") from error

    def end(self, silent: bool = False) -> None:
        """Kill it, and so every engine of its; reap it. `silent` says that it did not do what it was asked."""
        with self._lock:
            ended_by_itself = not self._given_up and self._process.poll() is not None
            self.failed |= not self.proven and (silent or ended_by_itself)
            self._given_up = True
            self._process.kill()
            self._process.wait()
            self._control.close()


class Forked:
    """An engine that a fork server starts."""

    def __init__(self, server: ForkServer, request: bytes, limits: EngineLimits):
        self._server, self._limits = server, limits
        self._lock = threading.Lock()
        self._process: int | None = None
        self._killed = self._over = False
        self._code = LOST
        self._line, line = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        pipes = os.pipe(), os.pipe(), os.pipe()
        (theirs_in, ours_in), (ours_out, theirs_out), (ours_error, theirs_error) = pipes
        self.stdin: IO[bytes] = os.fdopen(ours_in, "wb")
        self.stdout: IO[bytes] = os.fdopen(ours_out, "rb")
        self.stderr: IO[bytes] = os.fdopen(ours_error, "rb")
        try:
            server.ask(request, (theirs_in, theirs_out, theirs_error, line.fileno()))
        except Unforkable:
            self._close()
            raise
        finally:
            line.close()
            for descriptor in (theirs_in, theirs_out, theirs_error):
                os.close(descriptor)

    def kill(self) -> None:
        """Kill it and its process group, now; one that is not born yet never will be."""
        with self._lock:
            self._killed = True
            if self._over:
                return
            if self._process is not None:
                _kill_group(self._process)
                return
        self._server.end()

    def await_end(self) -> None:
        """Bring it to life, and wait until it and its process group are dead."""
        try:
            self._meet()
            self._code = self._hear_end()
        except (ServerLost, OSError) as error:
            if not self._killed:
                log.warning("fork_server_lost", error=str(error))
            self._server.end(silent=not self._killed)
            if self._process is not None:
                _kill_group(self._process)
                _until_ready(self._process)
        with self._lock:
            self._over = True

    def exit_code(self) -> int:
        """Its exit code; minus SIGKILL if its server was lost."""
        with self._lock:
            self._line.close()
            if self._process is not None:
                os.close(self._process)
                self._process = None
        return self._code

    def _meet(self) -> None:
        self._line.settimeout(START_SECONDS)
        message, descriptors, _, _ = socket.recv_fds(self._line, MESSAGE_BYTES, 1)
        if not descriptors:
            raise ServerLost("no engine was forked")
        with self._lock:
            [self._process] = descriptors
            self._server.proven = True
            if self._killed:
                raise ServerLost("the engine was killed before it began")
        self._limits.try_to_impose(json.loads(message)["pid"])
        self._line.send(b"go")

    def _hear_end(self) -> int:
        assert self._process is not None
        _until_ready(self._line.fileno(), self._process)
        self._line.settimeout(REPORT_SECONDS)
        message = self._line.recv(MESSAGE_BYTES)
        if not message:
            raise ServerLost("it ended, and its engine with it")
        return int(json.loads(message)["code"])

    def _close(self) -> None:
        for file in (self.stdin, self.stdout, self.stderr):
            file.close()
        self._line.close()


def _until_ready(*descriptors: int) -> None:
    poll = select.poll()
    for descriptor in descriptors:
        poll.register(descriptor, select.POLLIN)
    poll.poll()


def _kill_group(process: int) -> None:
    """Kill a process and its group by its descriptor; before Linux 6.9 the server kills the group once it is dead."""
    for flags in (PIDFD_SIGNAL_PROCESS_GROUP, 0):
        try:
            signal.pidfd_send_signal(process, signal.SIGKILL, None, flags)
        except OSError as error:  # it is gone, has no group yet, or the system knows no such flag
            log.debug("engine_not_signalled", flags=flags, error=str(error))
