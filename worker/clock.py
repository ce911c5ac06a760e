"""The clock by which a worker waits and holds leases."""

import time


def clock() -> float:
    """Seconds of this host's clock that nobody can set; where there is one, the clock that runs on in a suspend."""
    boot = getattr(time, "CLOCK_BOOTTIME", None)
    return time.monotonic() if boot is None else time.clock_gettime(boot)
