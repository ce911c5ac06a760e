"""What a process may ask of Linux for itself, without any right, by the C library."""

import ctypes
import os
from pathlib import Path
from typing import Any

PR_SET_DUMPABLE, PR_SET_SECCOMP, PR_CAPBSET_DROP, PR_SET_NO_NEW_PRIVS, PR_CAP_AMBIENT = 4, 22, 24, 38, 47
CAP_AMBIENT_CLEAR_ALL = 4
CAPABILITY_VERSION = 0x20080522
MOST_CAPABILITIES = 64
KEPT_CAPABILITIES = 1 << 1
"""CAP_DAC_OVERRIDE: root may have to pass through folders of others to reach its own files. Landlock stands above it."""

LIBC = ctypes.CDLL(None, use_errno=True)


class CapabilityHeader(ctypes.Structure):
    """cap_user_header_t."""

    _fields_ = [("version", ctypes.c_uint32), ("process", ctypes.c_int)]


class CapabilitySet(ctypes.Structure):
    """One half of cap_user_data_t[2]."""

    _fields_ = [("effective", ctypes.c_uint32), ("permitted", ctypes.c_uint32), ("inheritable", ctypes.c_uint32)]


def demand(result: int, what: str) -> int:
    """The result of a call, unless it failed.

    Raises:
        OSError: it did; the message says what was asked.
    """
    if result < 0:
        number = ctypes.get_errno()
        raise OSError(number, f"{what}: {os.strerror(number)}")
    return result


def prctl(option: int, *values: Any) -> int:
    """prctl(2); absent values are 0."""
    given = [value if isinstance(value, ctypes._Pointer) else ctypes.c_ulong(value) for value in values]
    given += [ctypes.c_ulong(0)] * (4 - len(given))
    return demand(LIBC.prctl(option, *given), f"prctl {option}")


def syscall(number: int, *values: Any) -> int:
    """syscall(2); integers are passed as long."""
    given = [ctypes.c_long(value) if isinstance(value, int) else value for value in values]
    return demand(LIBC.syscall(ctypes.c_long(number), *given), f"system call {number}")


def threads() -> int:
    """How many threads this process has."""
    return sum(1 for _ in Path("/proc/self/task").iterdir())


def forbid_privileges() -> None:
    """From now on no program that is started gains rights, setuid or not."""
    prctl(PR_SET_NO_NEW_PRIVS, 1)


def hide_memory() -> None:
    """Keep others of the same user from reading this process's memory and environment."""
    prctl(PR_SET_DUMPABLE, 0)


def drop_capabilities() -> None:
    """Give up all of root's powers but one, for ever; changes nothing for other users."""
    header, held = CapabilityHeader(CAPABILITY_VERSION, 0), (CapabilitySet * 2)()
    demand(LIBC.capget(ctypes.byref(header), held), "capget")
    kept = held[0].permitted & KEPT_CAPABILITIES
    if held[0].permitted == kept and not held[1].permitted:
        return
    for capability in range(MOST_CAPABILITIES):
        try:
            prctl(PR_CAPBSET_DROP, capability)
        except OSError:  # beyond the last that this kernel knows, or not allowed, which no_new_privs makes up for
            break
    prctl(PR_CAP_AMBIENT, CAP_AMBIENT_CLEAR_ALL)
    left = (CapabilitySet * 2)(CapabilitySet(kept, kept, 0), CapabilitySet(0, 0, 0))
    demand(LIBC.capset(ctypes.byref(header), left), "capset")
