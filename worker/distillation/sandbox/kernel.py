"""Linux system calls by which an unprivileged process restricts itself, through the C library."""

import ctypes
import os
from pathlib import Path
from typing import Any

PR_SET_DUMPABLE = 4
PR_SET_SECCOMP = 22
PR_CAPBSET_DROP = 24
PR_SET_NO_NEW_PRIVS = 38
PR_CAP_AMBIENT = 47
CAP_AMBIENT_CLEAR_ALL = 4
CAPABILITY_VERSION = 0x20080522
MOST_CAPABILITIES = 64
KEPT_CAPABILITIES = 1 << 1
"""CAP_DAC_OVERRIDE: root may need it to reach its files through other users' folders. Landlock applies regardless of it."""

LIBC = ctypes.CDLL(None, use_errno=True)


class CapabilityHeader(ctypes.Structure):
    """cap_user_header_t."""

    _fields_ = [("version", ctypes.c_uint32), ("process", ctypes.c_int)]


class CapabilitySet(ctypes.Structure):
    """One half of cap_user_data_t[2]."""

    _fields_ = [("effective", ctypes.c_uint32), ("permitted", ctypes.c_uint32), ("inheritable", ctypes.c_uint32)]


def check(result: int, what: str) -> int:
    """The result of a C call.

    Raises:
        OSError: it failed; the message names the call.
    """
    if result < 0:
        number = ctypes.get_errno()
        raise OSError(number, f"{what}: {os.strerror(number)}")
    return result


def prctl(option: int, *values: Any) -> int:
    """prctl(2); missing values are 0."""
    given = [value if isinstance(value, ctypes._Pointer) else ctypes.c_ulong(value) for value in values]
    given += [ctypes.c_ulong(0)] * (4 - len(given))
    return check(LIBC.prctl(option, *given), f"prctl {option}")


def syscall(number: int, *values: Any) -> int:
    """syscall(2); integers are passed as long."""
    given = [ctypes.c_long(value) if isinstance(value, int) else value for value in values]
    return check(LIBC.syscall(ctypes.c_long(number), *given), f"system call {number}")


def threads() -> int:
    """Number of threads of this process."""
    return sum(1 for _ in Path("/proc/self/task").iterdir())


def forbid_privileges() -> None:
    """Set `no_new_privs`: programs started later gain no privileges, not even setuid programs."""
    prctl(PR_SET_NO_NEW_PRIVS, 1)


def hide_memory() -> None:
    """Keep other processes of the same user from reading this process's memory and environment."""
    prctl(PR_SET_DUMPABLE, 0)


def drop_capabilities() -> None:
    """Give up all of root's capabilities but one, permanently; no effect for other users."""
    header, held = CapabilityHeader(CAPABILITY_VERSION, 0), (CapabilitySet * 2)()
    check(LIBC.capget(ctypes.byref(header), held), "capget")
    kept = held[0].permitted & KEPT_CAPABILITIES
    if held[0].permitted == kept and not held[1].permitted:
        return
    for capability in range(MOST_CAPABILITIES):
        try:
            prctl(PR_CAPBSET_DROP, capability)
        except OSError:  # beyond the kernel's last capability, or not permitted; no_new_privs covers that case
            break
    prctl(PR_CAP_AMBIENT, CAP_AMBIENT_CLEAR_ALL)
    left = (CapabilitySet * 2)(CapabilitySet(kept, kept, 0), CapabilitySet(0, 0, 0))
    check(LIBC.capset(ctypes.byref(header), left), "capset")
