"""A process whose clock is wrong, by a library that is loaded before all others (Debian: `faketime`)."""

import sys
from pathlib import Path


def clock_library() -> Path | None:
    """The library that gives a process another clock, if it is installed here (Debian: `faketime`)."""
    found = [
        *Path("/usr/lib").glob("**/faketime/libfaketimeMT.so.1"),
        *Path("/usr/local/lib").glob("**/libfaketimeMT.so.1"),
    ]
    return found[0] if found and sys.platform == "linux" else None


def clock_variables(seconds: int) -> dict[str, str]:
    """Environment variables that put a process's clock off by some seconds, and leave what it waits by alone."""
    library = clock_library()
    if library is None:
        return {}
    return {
        "LD_PRELOAD": str(library),
        "FAKETIME": f"{seconds:+d}",
        "FAKETIME_DONT_FAKE_MONOTONIC": "1",
        "NO_FAKE_STAT": "1",
    }
