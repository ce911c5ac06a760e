"""The clock for a worker's waits and leases."""

import time


def clock() -> float:
    """Seconds of this host's monotonic clock; where the system has one, a clock that includes time in suspend."""
    boot = getattr(time, "CLOCK_BOOTTIME", None)
    return time.monotonic() if boot is None else time.clock_gettime(boot)
