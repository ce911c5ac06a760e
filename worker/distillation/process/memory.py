"""The engine's own limits on memory, so that it ends before the machine's memory does."""

import resource
import sys
from contextlib import suppress
from pathlib import Path


def die_first() -> None:
    """On Linux, have the kernel kill this process, and all that it starts, before any other if memory runs out."""
    with suppress(OSError):
        Path("/proc/self/oom_score_adj").write_text("1000")


def limit_memory(allowed: int) -> None:
    """Limit the private memory of this process to what it has now and `allowed` bytes, permanently; only on Linux.

    Then allocations fail with an exception. Address space is not limited: libraries reserve far more than they use.
    """
    if sys.platform != "linux":
        return
    limit = _private_bytes() + allowed
    _, hard = resource.getrlimit(resource.RLIMIT_DATA)
    limit = limit if hard == resource.RLIM_INFINITY else min(limit, hard)
    resource.setrlimit(resource.RLIMIT_DATA, (limit, limit))


def _private_bytes() -> int:
    status = Path("/proc/self/status").read_text()
    return 1024 * next(int(line.split()[1]) for line in status.splitlines() if line.startswith("VmData:"))
