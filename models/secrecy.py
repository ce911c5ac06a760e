"""Keeps what a process knows out of the reach of others of the same user."""

import ctypes
import sys

PR_SET_DUMPABLE = 4


def hide_memory() -> None:
    """Keep others of the same user, engines above all, from reading this process's environment and memory.

    It holds until the process becomes another program, and against whoever has no power over other processes: root has,
    but for a confined engine. Linux only.
    """
    if sys.platform == "linux":
        ctypes.CDLL(None, use_errno=True).prctl(PR_SET_DUMPABLE, 0, 0, 0, 0)
