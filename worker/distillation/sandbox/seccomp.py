"""A seccomp filter of system calls: no network, no access to other processes, no administrative calls.

It also works in containers without privileges. It forbids what Landlock does not cover: every kind of socket, changing the
permissions of files, limits of other processes, and the kernel's newer interfaces.
"""

import ctypes
import errno
import platform
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from worker.distillation.sandbox.kernel import PR_SET_SECCOMP, prctl
from worker.distillation.sandbox.system_calls import ARCHITECTURES, FORBIDDEN, NUMBERS, SIGNALS

MODE_FILTER = 2
ALLOW, REFUSE = 0x7FFF0000, 0x00050000
LOAD = 0x20
AND = 0x54
JUMP_EQUAL = 0x15
JUMP_AT_LEAST = 0x35
RETURN = 0x06
# Offsets in seccomp_data.
NUMBER = 0
ARCHITECTURE = 4
ARGUMENTS = 16
X32 = 0x40000000
UNIX = 1
INET = 2
INET6 = 10
NETLINK = 16
STREAM = 1
DATAGRAM = 2
SEQUENCED_PACKETS = 5
SOCKET_KIND = 0xF
NEW_NAMESPACES = 0x7E020000
"""The flags of clone(2) that make namespaces."""
A_THREAD = 0x10000
"""The flag of clone(2) that makes a thread instead of a process."""
ACCESS_AND_TRUNCATE = 0o3 | 0o1000

Instruction = tuple[int, int, int, int]


class Line(ctypes.Structure):
    """sock_filter."""

    _fields_ = [("code", ctypes.c_uint16), ("yes", ctypes.c_uint8), ("no", ctypes.c_uint8), ("value", ctypes.c_uint32)]


class Program(ctypes.Structure):
    """sock_fprog."""

    _fields_ = [("length", ctypes.c_ushort), ("lines", ctypes.POINTER(Line))]


@dataclass(frozen=True)
class Allowed:
    """What the filter allows: internet `sockets` (in a network namespace of its own), `signals` to other processes,
    `truncation` of files, new `processes` besides threads, and with `gpu` the calls by which CUDA's driver finds out that no MPS
    server is running.
    """

    sockets: bool = False
    gpu: bool = False
    signals: bool = True
    truncation: bool = True
    processes: bool = True


def install(allowed: Allowed, process: int) -> None:
    """Filter the system calls of this thread and of all that it starts; requires `no_new_privs`.

    Args:
        process: this process's pid, the only one that it may signal if signals are not allowed.

    Raises:
        OSError: the kernel refuses, or this architecture is not supported.
    """
    program = write(allowed, process, platform.machine())
    lines = (Line * len(program))(*(Line(*instruction) for instruction in program))
    filter = Program(len(program), ctypes.cast(lines, ctypes.POINTER(Line)))
    prctl(PR_SET_SECCOMP, MODE_FILTER, ctypes.pointer(filter))


def write(allowed: Allowed, process: int, machine: str) -> list[Instruction]:
    """The BPF program of the filter for an architecture.

    Raises:
        OSError: the architecture is not supported.
    """
    if machine not in ARCHITECTURES:
        raise OSError(errno.ENOSYS, f"the architecture {machine} is not supported")
    column = list(ARCHITECTURES).index(machine)
    lines: list[Instruction] = [
        (LOAD, 0, 0, ARCHITECTURE),
        (JUMP_EQUAL, 1, 0, ARCHITECTURES[machine]),
        _refuse(errno.EPERM),
        (LOAD, 0, 0, NUMBER),
        (JUMP_AT_LEAST, 0, 1, X32),
        _refuse(errno.EPERM),
    ]
    for name, answer in _rules(allowed, process):
        number = NUMBERS[name][column]
        if number is not None:
            lines += [(JUMP_EQUAL, 0, len(answer), number), *answer]
    return [*lines, (RETURN, 0, 0, ALLOW)]


def _rules(allowed: Allowed, process: int) -> Iterable[tuple[str, Sequence[Instruction]]]:
    """System calls and the instructions that handle them; each handler ends in a return."""
    for name in FORBIDDEN:
        yield name, [_refuse(errno.EPERM)]
    # its flags are in memory, which a filter cannot read; the C library falls back to clone
    yield "clone3", [_refuse(errno.ENOSYS)]
    if allowed.processes:
        yield "clone", _refuse_if(0, NEW_NAMESPACES, unless=(0,))
    else:
        yield "clone", _refuse_if(0, NEW_NAMESPACES | A_THREAD, unless=(A_THREAD,))
        yield "fork", [_refuse(errno.EPERM)]
        yield "vfork", [_refuse(errno.EPERM)]
    yield "prlimit64", _refuse_if(0, 0xFFFFFFFF, unless=(0,))
    yield from _about_sockets(allowed.sockets, allowed.gpu)
    if not allowed.signals:
        for name in SIGNALS:
            yield name, _refuse_if(0, 0xFFFFFFFF, unless=(process, 0))
        yield "pidfd_send_signal", [_refuse(errno.EPERM)]
    if not allowed.truncation:
        yield "truncate", [_refuse(errno.EPERM)]
        yield "openat2", [_refuse(errno.ENOSYS)]
        for name, argument in (("open", 1), ("openat", 2)):
            # read access would still allow truncation; Landlock checks opens for writing
            yield name, _refuse_where(argument, ACCESS_AND_TRUNCATE, (0o1000,), errno.EPERM)


def _about_sockets(internet: bool, gpu: bool) -> Iterable[tuple[str, Sequence[Instruction]]]:
    family = LOAD, 0, 0, ARGUMENTS
    datagrams = _refuse_where(1, SOCKET_KIND, (DATAGRAM,), errno.EACCES)
    if internet:
        # no Unix sockets: a process that may connect could connect to any in the file system
        others = _refuse_if(0, 0xFFFFFFFF, unless=(INET, INET6, NETLINK), with_error=errno.EACCES)
        # except the kind by which CUDA's driver looks for an MPS server, which hardly anything else uses
        packets = _refuse_if(1, SOCKET_KIND, unless=(SEQUENCED_PACKETS,), with_error=errno.EACCES)
        yield "socket", [family, (JUMP_EQUAL, 0, len(packets), UNIX), *packets, *others] if gpu else others
    else:
        yield "socket", [family, (JUMP_EQUAL, 1, 0, UNIX), _refuse(errno.EACCES), *datagrams]
        yield "bind", [_refuse(errno.EACCES)]
        yield "connect", [_refuse(errno.ENOENT)]  # as if there were no server, an error that libraries handle
    yield "socketpair", datagrams


def _refuse(number: int) -> Instruction:
    return RETURN, 0, 0, REFUSE | number


def _refuse_if(argument: int, mask: int, unless: Sequence[int], with_error: int = errno.EPERM) -> list[Instruction]:
    """Refuse unless an argument's masked bits equal one of the values."""
    return _compare(argument, mask, unless, ((RETURN, 0, 0, ALLOW), _refuse(with_error)))


def _refuse_where(argument: int, mask: int, values: Sequence[int], with_error: int) -> list[Instruction]:
    """Refuse if an argument's masked bits equal one of the values."""
    return _compare(argument, mask, values, (_refuse(with_error), (RETURN, 0, 0, ALLOW)))


def _compare(
    argument: int, mask: int, values: Sequence[int], answers: tuple[Instruction, Instruction]
) -> list[Instruction]:
    """The first answer if an argument's masked bits equal one of the values, else the second."""
    jumps = [(JUMP_EQUAL, len(values) - index, 0, value) for index, value in enumerate(values)]
    # all checked arguments fit into 32 bits; the supported architectures are little-endian
    return [(LOAD, 0, 0, ARGUMENTS + 8 * argument), (AND, 0, 0, mask), *jumps, answers[1], answers[0]]
