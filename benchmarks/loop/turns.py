"""Loops that take turns, so that the load of the machine reaches all alike."""

import os
import statistics
import sys
import time
from collections.abc import Callable


def measured(made: dict[str, Callable[[], None]], turns: int, steps: int) -> dict[str, dict[str, float]]:
    """Medians of milliseconds a step by loop: `wall` and `cpu`."""
    spent: dict[str, list[tuple[float, float]]] = {name: [] for name in made}
    for step in made.values():
        for _ in range(2):
            step()
    names = list(made)
    for turn in range(turns):
        for name in names[turn % len(names) :] + names[: turn % len(names)]:
            began, used = time.perf_counter(), time.process_time()
            for _ in range(steps):
                made[name]()
            spent[name].append((time.perf_counter() - began, time.process_time() - used))
        print(f"turn {turn + 1} of {turns}, load {os.getloadavg()[0]:.1f}", file=sys.stderr, flush=True)
    return {
        name: {
            kind: round(1000 / steps * statistics.median(pair[place] for pair in pairs), 2)
            for place, kind in enumerate(("wall", "cpu"))
        }
        for name, pairs in spent.items()
    }
