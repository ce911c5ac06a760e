"""Attacks that hostile code in an engine's process would try. Each returns what it found, or fails with an OSError."""

import ctypes
import os
import resource
import socket
import subprocess
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing
from pathlib import Path
from typing import Any

LIBC = ctypes.CDLL(None, use_errno=True)
PTRACE_DETACH, PTRACE_SEIZE = 17, 0x4206
IO_URING_SETUP, PIDFD_GETFD = 425, 438
CLONE_NEWUSER = 0x10000000


def attack(targets: Mapping[str, Any]) -> dict[str, str | None]:
    """The result of each attack, or None if it was refused."""
    found: dict[str, str | None] = {}
    for name, attempt in attempts(targets):
        try:
            found[name] = str(attempt())[:60]
        except OSError:
            found[name] = None
    return found


def attempts(targets: Mapping[str, Any]) -> Iterator[tuple[str, Callable[[], Any]]]:
    """All attacks: on processes, files, the network and the kernel."""
    mark, parent = targets["mark"].encode(), os.getppid()
    yield "environments", lambda: search(Path("/proc").glob("[0-9]*/environ"), mark)
    yield "parent's environment", lambda: Path(f"/proc/{parent}/environ").read_bytes()[:10]
    yield "parent's memory", lambda: read_memory(parent)
    yield "parent's memory by a call", lambda: read_by_call(parent)
    yield "parent's descriptors", lambda: next(Path(f"/proc/{parent}/fd").iterdir())
    yield "a descriptor of the parent", lambda: take_descriptor(parent)
    yield "trace the parent", lambda: trace(parent)
    yield "signal the parent", lambda: os.kill(parent, 0)
    yield "limit the parent", lambda: resource.prlimit(parent, resource.RLIMIT_NOFILE)
    yield "own descriptors", odd_descriptors
    yield "own environment", lambda: search([Path("/proc/self/environ")], mark, os.environb)
    for name, file in targets["files"].items():
        yield f"read {name}", lambda file=file: Path(file).read_bytes()
        yield f"read {name} by a program", lambda file=file: run("/bin/cat", file)
        yield f"write {name}", lambda file=file: Path(file).open("ab").close()
        yield f"permissions of {name}", lambda file=file: Path(file).chmod(0o666)
        yield f"cut {name}", lambda file=file: os.truncate(file, Path(file).stat().st_size)
        yield f"cut {name} unread", lambda file=file: os.close(os.open(f"{file}.cut", os.O_RDONLY | os.O_TRUNC))
        yield f"link to {name}", lambda name=name, file=file: Path(f"way-to-{name}").symlink_to(file)
        yield f"hard link to {name}", lambda name=name, file=file: os.link(file, f"hard-{name}")
        yield f"write beside {name}", lambda file=file: (Path(file).parent / f"left-by-{os.getpid()}").touch()
    for folder in ("/", "/etc", "/tmp", "/root", "/home", "/run", "/proc", "/dev/shm", targets["data"]):
        yield f"list {folder}", lambda folder=folder: os.listdir(folder)  # noqa: PTH208
    yield "walk", lambda: search((path for path in Path(targets["data"]).rglob("*") if path.is_file()), mark)
    yield "addresses", lambda: search([Path("/proc/net/tcp"), Path(f"/proc/{parent}/net/tcp")], b"local_address")
    yield "a pipe that blocks the worker", lambda: os.mkfifo("pipe")
    for name, address in targets["tcp"].items():
        yield f"connect to {name}", lambda address=address: connect(socket.AF_INET, tuple(address))
    for name, address in targets["unix"].items():
        yield f"connect to {name}", lambda address=address: connect(socket.AF_UNIX, address)
    yield "an abstract socket", lambda: connect(socket.AF_UNIX, "\0" + targets["abstract"])
    yield "a datagram", lambda: send(tuple(targets["udp"]))
    yield "a name server", lambda: send(("127.0.0.53", 53))
    yield "listen", lambda: socket.create_server(("127.0.0.1", 0)).close()
    yield "IPv6", lambda: socket.socket(socket.AF_INET6).close()
    yield "netlink", lambda: socket.socket(socket.AF_NETLINK, socket.SOCK_RAW).close()
    yield (
        "a network by a program",
        lambda: run("/bin/bash", "-c", "echo > /dev/tcp/{}/{}".format(*targets["tcp"]["Redis"])),
    )
    yield "io_uring", lambda: call(IO_URING_SETUP, 1, ctypes.create_string_buffer(120))
    yield "other namespaces", other_namespaces


def search(files: Any, mark: bytes, *more: Any) -> str:
    """The first file that contains the mark."""
    for file in files:
        try:
            if mark in file.read_bytes():
                return str(file)
        except OSError:
            continue
    if any(mark in bytes(key) + bytes(value) for each in more for key, value in each.items()):
        return "environment"
    raise FileNotFoundError


def read_memory(process: int) -> bytes:
    """Read some bytes of another process's memory."""
    start = int(Path(f"/proc/{process}/maps").read_text().partition("-")[0], 16)
    with Path(f"/proc/{process}/mem").open("rb") as memory:
        memory.seek(start)
        return memory.read(4)


def read_by_call(process: int) -> int:
    """Read with process_vm_readv(2); an error about the address counts as success, since reading was allowed."""
    here = ctypes.create_string_buffer(8)
    local = (ctypes.c_uint64 * 2)(ctypes.addressof(here), 8)
    if LIBC.process_vm_readv(process, local, 1, local, 1, 0) < 0 and ctypes.get_errno() != 14:
        raise OSError(ctypes.get_errno(), "process_vm_readv")
    return 8


def take_descriptor(process: int) -> int:
    return call(PIDFD_GETFD, os.pidfd_open(process), 0, 0)


def trace(process: int) -> str:
    if LIBC.ptrace(PTRACE_SEIZE, process, None, None) < 0:
        raise OSError(ctypes.get_errno(), "ptrace")
    LIBC.ptrace(PTRACE_DETACH, process, None, None)
    return "traced"


def odd_descriptors() -> list[str]:
    """Descriptors that are neither pipes nor files of this engine."""
    ends = {number: os.readlink(f"/proc/self/fd/{number}") for number in os.listdir("/proc/self/fd")}  # noqa: PTH208, PTH115
    odd = [end for end in ends.values() if not end.startswith(("pipe:", "/proc/", str(Path.cwd())))]
    if not odd:
        raise FileNotFoundError
    return odd


def run(*command: str) -> str:
    done = subprocess.run(command, capture_output=True, check=False, timeout=5)
    if done.returncode:
        raise PermissionError(done.stderr)
    return done.stdout.decode(errors="replace")


def connect(family: int, address: Any) -> str:
    with closing(socket.socket(family)) as client:
        client.settimeout(3)
        client.connect(address)
    return "connected"


def send(address: tuple[str, int]) -> int:
    with closing(socket.socket(socket.AF_INET, socket.SOCK_DGRAM)) as client:
        return client.sendto(b"found", address)


def call(number: int, *values: Any) -> int:
    result = int(LIBC.syscall(number, *values))
    if result < 0:
        raise OSError(ctypes.get_errno(), f"system call {number}")
    return result


def other_namespaces() -> str:
    """Try it in a child process, since a process has all capabilities in its own user namespace."""
    child = os.fork()
    if child == 0:
        os._exit(0 if LIBC.unshare(CLONE_NEWUSER) == 0 else 1)
    if os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]):
        raise PermissionError
    return "made"
