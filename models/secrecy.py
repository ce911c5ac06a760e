"""Protects the memory and environment of a process from other processes of the same user."""

import ctypes
import sys

PR_SET_DUMPABLE = 4


def hide_memory() -> None:
    """Prevent processes of the same user, such as engines, from reading this process's environment and memory.

    The protection lasts until the process calls exec. It does not stop processes with CAP_SYS_PTRACE, such as those of
    root, unless they run in the engine's sandbox. Linux only.
    """
    if sys.platform == "linux":
        ctypes.CDLL(None, use_errno=True).prctl(PR_SET_DUMPABLE, 0, 0, 0, 0)
