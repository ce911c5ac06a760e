"""Engines started by a fork server (worker/distillation/process/fork_server.py); Linux only.

The server is a child of this process, and the engines are children of the server. So an engine is killed through its pidfd,
since its pid could have been reused, and the server reports its exit code.
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

from worker.engine.cgroup import Group
from worker.engine.confinement import EngineLimits, environment

COMMAND = (sys.executable, "-P", "-m", "worker.distillation.process.fork_server")
START_SECONDS = 60.0
"""Time limit for starting an engine; the first start waits until the server has imported torch."""
REPORT_SECONDS = 10.0
"""Time limit for the server's report after an engine has ended; without it, the server is considered hung."""
MESSAGE_BYTES = 4096
LOST = -signal.SIGKILL
"""The exit code of an engine whose server has died."""
PIDFD_SIGNAL_PROCESS_GROUP = 4

log = structlog.get_logger(__name__)


class Unforkable(Exception):
    """The fork server cannot be reached; no engine was started."""


class ServerLost(Exception):
    """The fork server has died, or has not answered in time."""


def can_fork() -> bool:
    """Whether this system supports pidfds, which the fork server needs: Linux 5.3 or later."""
    if sys.platform != "linux":
        return False
    try:
        os.close(os.pidfd_open(os.getpid()))
    except OSError:
        return False
    return True


class ForkServer:
    """A fork server process. Linux kills it when the thread that created this object ends. If `fresh`, its engines are new
    interpreters.

    `proven`: it has started an engine; `broken`: it cannot start any more; `failed`: it never started one.
    """

    def __init__(self, training: bool = False, fresh: bool = False) -> None:
        self.proven = False
        self.failed = False
        self._given_up = False
        self._control, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with theirs:
            self._process = subprocess.Popen(
                [*COMMAND, str(theirs.fileno()), *(["--fresh"] if fresh else [])],
                cwd="/",
                env=environment(Path("/"), None, gpu=False, trains=training)
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
        """Request an engine, which starts in its `await_end`. `command` is a module's name and its arguments.

        Raises:
            Unforkable: the server cannot be reached.
        """
        module, *arguments = command
        request = {"module": module, "arguments": arguments, "folder": str(folder), "environment": dict(environment)}
        return Forked(self, json.dumps(request).encode(), limits)

    def ask(self, request: bytes, descriptors: Sequence[int]) -> None:
        """Send a request with file descriptors.

        Raises:
            Unforkable: the server cannot be reached.
        """
        try:
            socket.send_fds(self._control, [request], descriptors, socket.MSG_NOSIGNAL | socket.MSG_DONTWAIT)
        except OSError as error:
            raise Unforkable(f"the fork server cannot be reached: {error}") from error

    def end(self, silent: bool = False) -> None:
        """Kill and reap the server; its engines end with it. `silent`: it has not answered a request."""
        with self._lock:
            exited = not self._given_up and self._process.poll() is not None
            self.failed |= not self.proven and (silent or exited)
            self._given_up = True
            self._process.kill()
            self._process.wait()
            self._control.close()


class Forked:
    """An engine started by a fork server."""

    def __init__(self, server: ForkServer, request: bytes, limits: EngineLimits):
        self._server = server
        self._limits = limits
        self._lock = threading.Lock()
        self._process: int | None = None
        self._killed = False
        self._ended = False
        self._code = LOST
        self._group: Group | None = None
        self.out_of_memory = False
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
        """Kill the engine and its process group immediately; an engine that has not started yet never starts."""
        with self._lock:
            self._killed = True
            if self._ended:
                return
            if self._process is not None:
                _kill_group(self._process)
                return
        self._server.end()

    def await_end(self) -> None:
        """Let the engine start, and wait until it and its process group are dead."""
        try:
            self._receive_process()
            self._code = self._receive_code()
        except (ServerLost, OSError) as error:
            if not self._killed:
                log.warning("fork_server_lost", error=str(error))
            self._server.end(silent=not self._killed)
            if self._process is not None:
                _kill_group(self._process)
                _until_ready(self._process)
        finally:
            if self._group is not None:
                self.out_of_memory = self._group.end()
        with self._lock:
            self._ended = True

    def exit_code(self) -> int:
        """The engine's exit code; -SIGKILL if its server died."""
        with self._lock:
            self._line.close()
            if self._process is not None:
                os.close(self._process)
                self._process = None
        return self._code

    def _receive_process(self) -> None:
        self._line.settimeout(START_SECONDS)
        message, descriptors, _, _ = socket.recv_fds(self._line, MESSAGE_BYTES, 1)
        if not descriptors:
            raise ServerLost("the fork server did not start an engine")
        with self._lock:
            [self._process] = descriptors
            self._server.proven = True
            if self._killed:
                raise ServerLost("the engine was killed before it started")
        self._group = self._limits.try_to_impose(json.loads(message)["pid"])
        self._line.send(b"go")

    def _receive_code(self) -> int:
        assert self._process is not None
        _until_ready(self._line.fileno(), self._process)
        self._line.settimeout(REPORT_SECONDS)
        message = self._line.recv(MESSAGE_BYTES)
        if not message:
            raise ServerLost("the fork server died, and its engine with it")
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
    """Kill a process and its group through its pidfd; before Linux 6.9, the server kills the group when the process is dead."""
    for flags in (PIDFD_SIGNAL_PROCESS_GROUP, 0):
        try:
            signal.pidfd_send_signal(process, signal.SIGKILL, None, flags)
        except OSError as error:  # it has ended, has no group yet, or the kernel does not support the flag
            log.debug("engine_not_signalled", flags=flags, error=str(error))
