"""How this process allocates memory, and gives it back."""

import ctypes

TRIM_THRESHOLD, MMAP_THRESHOLD, ARENA_MAX = -1, -3, -8
"""Numbers of mallopt(3)."""
LARGE_BYTES = 2**18
ARENAS = 2


def return_large_blocks() -> None:
    """Return blocks of 256 KiB and more to the system as soon as they are freed, and let threads share their heaps.

    By default glibc raises this threshold to the size of freed blocks, up to 32 MiB, and gives threads heaps of their own. The
    buffers of a few slow clients then stay with the process for ever. Other C libraries have no such call.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:
        mallopt(TRIM_THRESHOLD, LARGE_BYTES)
        mallopt(MMAP_THRESHOLD, LARGE_BYTES)
        mallopt(ARENA_MAX, ARENAS)
