"""Starts engines by forking a process that has imported torch: `python -m worker.distillation.process.fork_server FD`.

`FD` is a socket to the worker. With `--fresh` it imports nothing, and an engine is a new interpreter: then the server only
reaps it and what it leaves behind.

The server never runs a job itself, reads no untrusted file, and has one thread, so that a forked engine behaves as in a
fresh interpreter. A request is a JSON object with the `module` and `arguments` of a command, its `folder` and its whole
`environment`. Four file descriptors come with it: the engine's stdin, stdout and stderr, and its *line*, a socket. On the
line, the server sends `{"pid": …}` with the process's pidfd, the engine waits for `go`, and at the end the server sends
`{"code": …}` after it has killed everything in the engine's process group, and every process that the engine has left behind in
other groups and sessions. Such processes become children of the server, which is a subreaper (PR_SET_CHILD_SUBREAPER).

The server ends with the worker, and every engine ends with the server.
"""

import ctypes
import gc
import importlib
import json
import os
import pkgutil
import random
import runpy
import select
import signal
import socket
import sys
import tempfile
import traceback
from collections.abc import Collection, Iterator
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, NoReturn

from worker.distillation.process.event_pipe import ORPHANED, die_with_parent

REQUEST_BYTES = 1 << 17
GO = b"go"
NOW = ("several_checks", "uploads.inspect_upload", "run")
"""Modules of the engine that every job or inspection needs."""
METHODS = ("objectives", "procedures", "sources", "tasks", "networks")
TORCH = ("torch._dynamo",)
"""Modules that torch imports, in more than a second, at the first step of an optimiser and the first layer on the meta
device."""
LATER = ("torchvision", "timm")
"""Modules that some engines need: imported after the first request, while no engine runs."""
IDLE_SECONDS = 1.0
PR_SET_DUMPABLE, PR_SET_CHILD_SUBREAPER = 4, 36
MOST_ROUNDS = 1000


@dataclass(frozen=True)
class Engine:
    """A running engine; `line` is the server's socket to the requester."""

    pid: int
    line: socket.socket


def main() -> int:
    """Serve until the worker closes the socket; returns the exit code."""
    die_with_parent()
    adopt_orphans()
    set_dumpable(False)  # else an engine, a process of the same user, could write into this process's memory
    control = socket.socket(fileno=int(sys.argv[1]))
    fresh = "--fresh" in sys.argv
    for name in () if fresh else (*modules(), *TORCH):
        importlib.import_module(name)
    if len(os.listdir("/proc/self/task")) != 1:  # noqa: PTH208 - only names are needed
        print("engines cannot be forked: an import has started threads", file=sys.stderr)
        return 1
    gc.collect()
    gc.freeze()  # so that garbage collection in an engine does not touch, and thereby copy, the shared memory
    Server(control, fresh).run()
    return 0


def modules() -> Iterator[str]:
    """The names of the modules imported before the first fork."""
    package = "worker.distillation"
    yield from (f"{package}.{name}" for name in NOW)
    for kind in METHODS:
        found = importlib.import_module(f"{package}.{kind}")
        yield from (
            module.name for module in pkgutil.walk_packages(found.__path__, f"{package}.{kind}.") if not module.ispkg
        )


def set_dumpable(allowed: bool) -> None:
    """Allow or forbid other processes of this user to read and trace this one."""
    ctypes.CDLL(None, use_errno=True).prctl(PR_SET_DUMPABLE, int(allowed), 0, 0, 0)


def adopt_orphans() -> None:
    """Become the parent of all descendants whose own parent ends."""
    ctypes.CDLL(None, use_errno=True).prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)


def kill_children(kept: Collection[int]) -> None:
    """Kill and reap the children of this process except those to keep, and the children that these leave, and so on."""
    for _ in range(MOST_ROUNDS):
        left = children() - set(kept)
        for pid in left:
            os.kill(pid, signal.SIGKILL)
        for pid in left:
            os.waitpid(pid, 0)
        if not left:
            return
    print("an engine's processes multiply faster than they are killed", file=sys.stderr, flush=True)


def children() -> set[int]:
    """The children of this process; none of them can be replaced by another process of the same pid before it is reaped."""
    found = set()
    for name in filter(str.isdecimal, os.listdir("/proc")):  # noqa: PTH208 - only names are needed
        with suppress(OSError), open(f"/proc/{name}/stat") as file:  # noqa: PTH123 - quicker, and there may be many
            if int(file.read().rpartition(")")[2].split()[1]) == os.getpid():
                found.add(int(name))
    return found


class Server:
    """Forks engines on request, reaps them, and reports their exit codes."""

    def __init__(self, control: socket.socket, fresh: bool = False):
        self._fresh = fresh
        self._control = control
        self._engines: dict[int, Engine] = {}
        self._later: list[str] = []
        self._poll = select.poll()
        self._poll.register(control, select.POLLIN)

    def run(self) -> None:
        """Answer requests until the worker closes its end."""
        answered = False
        while True:
            idle = bool(self._later) and not self._engines
            ready = self._poll.poll(IDLE_SECONDS * 1000 if idle else None)
            if not ready:
                self._import_one()
            for descriptor, _ in ready:
                if descriptor != self._control.fileno():
                    self._reap(descriptor)
                elif not self._answer():
                    return
                elif not answered:
                    answered, self._later = True, [] if self._fresh else list(LATER)

    def _import_one(self) -> None:
        name = self._later.pop(0)
        try:
            importlib.import_module(name)
        except ImportError:  # an engine that needs it reports the error
            traceback.print_exc()
        gc.freeze()

    def _answer(self) -> bool:
        """Start the requested engine; false if the worker has closed its end."""
        message, descriptors, _, _ = socket.recv_fds(self._control, REQUEST_BYTES, 4)
        if not message:
            return False
        *pipes, line = descriptors
        with socket.socket(fileno=line) as end:
            try:
                self._start(json.loads(message), pipes, end)
            except OSError as error:
                os.write(pipes[2], f"the engine cannot be started: {error}\n".encode())
            finally:
                for descriptor in pipes:
                    os.close(descriptor)
        return True

    def _start(self, request: dict[str, Any], pipes: list[int], line: socket.socket) -> None:
        server = os.getpid()
        pid = os.fork()
        if pid == 0:
            become(request, pipes, line, server, self._fresh)
        try:
            descriptor = os.pidfd_open(pid)
        except OSError:
            os.waitpid(pid, 0)  # it exits, since it never receives `go`
            raise
        self._engines[descriptor] = Engine(pid, line.dup())
        self._poll.register(descriptor, select.POLLIN)
        send(line, {"pid": pid}, descriptor)

    def _reap(self, descriptor: int) -> None:
        engine = self._engines.pop(descriptor)
        self._poll.unregister(descriptor)
        os.waitid(os.P_PID, engine.pid, os.WEXITED | os.WNOWAIT)
        with suppress(ProcessLookupError):  # it ended before it had a group
            os.killpg(engine.pid, signal.SIGKILL)  # before waitpid, so that the pid cannot have been reused
        _, status = os.waitpid(engine.pid, 0)
        kill_children(kept=[other.pid for other in self._engines.values()])
        os.close(descriptor)
        with engine.line as line:
            send(line, {"code": os.waitstatus_to_exitcode(status)})


def send(line: socket.socket, message: dict[str, int], *descriptors: int) -> None:
    """Send a message to the requester, unless it has closed its end."""
    with suppress(BrokenPipeError, ConnectionResetError):
        socket.send_fds(line, [json.dumps(message).encode()], descriptors, socket.MSG_NOSIGNAL)


def become(request: dict[str, Any], pipes: list[int], line: socket.socket, server: int, fresh: bool) -> NoReturn:
    """Run the requested command in a newly forked process; if `fresh`, in a new interpreter."""
    code: Any = 1
    try:
        os.setsid()
        die_with_parent()
        adopt_orphans()  # the server's children are then either engines or what an engine has left
        if os.getppid() != server or line.recv(len(GO)) != GO:
            os._exit(ORPHANED)
        take_over(request, pipes)
        if fresh:
            os.execve(sys.executable, [sys.executable, "-P", "-m", *sys.argv], request["environment"])
        runpy.run_module(request["module"], run_name="__main__", alter_sys=True)
        code = 0
    except SystemExit as end:
        code = end.code if isinstance(end.code, int) else int(end.code is not None)
    except BaseException:  # noqa: BLE001 - as the interpreter does at its top level
        traceback.print_exc()
    finally:
        os._exit(code)


def take_over(request: dict[str, Any], pipes: list[int]) -> None:
    """Set the request's pipes, folder and environment, and close all other descriptors of the server."""
    for place, descriptor in enumerate(pipes):
        os.dup2(descriptor, place)
    os.closerange(3, os.sysconf("SC_OPEN_MAX"))
    set_dumpable(True)
    os.chdir(request["folder"])
    os.environ.clear()
    os.environ.update(request["environment"])
    tempfile.tempdir = None
    sys.argv[:] = [request["module"], *request["arguments"]]
    random.seed()
    if "numpy" in sys.modules:
        sys.modules["numpy"].random.seed()


if __name__ == "__main__":
    os._exit(main())
