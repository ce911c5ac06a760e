"""The cost of the engine's sandbox: `python -m benchmarks.service.sandbox_cost [--times 30]`; Linux only.

    confine   milliseconds, wall-clock and CPU, until a process has confined itself: once per engine
    call      nanoseconds of a system call that does next to nothing, with the filter and without
    open      nanoseconds to open and close a file in the own folder, with Landlock and without

Each is a median over fresh processes. Writes `results/sandbox_cost.json`.
"""

import argparse
import json
import os
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from benchmarks.mnist.digits import RESULTS
from worker.distillation.sandbox import confine, linux  # the process that starts engines imports its modules once

CALLS = 20_000


def main() -> int:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.service.sandbox_cost", description=__doc__.splitlines()[0]
    )
    parser.add_argument("--times", type=int, default=30)
    times = parser.parse_args().times
    rows = {
        ranks: [in_a_child(lambda folder, r=ranks: measure(folder, r)) for _ in range(times)] for ranks in (0, 1, 2)
    }
    names = {0: "open", 1: "confined", 2: "several ranks"}
    results = {
        names[ranks]: {name: round(statistics.median(row[name] for row in found), 2) for name in found[0]}
        for ranks, found in rows.items()
    }
    RESULTS.mkdir(parents=True, exist_ok=True)
    (RESULTS / "sandbox_cost.json").write_text(
        json.dumps({"landlock": linux.landlock.version()} | results, indent=2) + "\n"
    )
    print(json.dumps(results, indent=2))
    return 0


def in_a_child(work: Callable[[Path], dict[str, float]]) -> dict[str, float]:
    """The result of a measurement in a separate process."""
    with tempfile.TemporaryDirectory() as folder:
        ours, theirs = os.pipe()
        if (child := os.fork()) == 0:
            os.write(theirs, json.dumps(work(Path(folder))).encode())
            os._exit(0)
        os.close(theirs)
        with os.fdopen(ours) as pipe:
            found = json.loads(pipe.read())
        os.waitpid(child, 0)
        return dict(found)


def measure(folder: Path, ranks: int) -> dict[str, float]:
    """Confine this process, unless `ranks` is 0, and measure."""
    clock, processor = time.perf_counter(), time.process_time()
    if ranks:
        assert confine(folder, ranks, gpu=False).filesystem != "open"
    confined = {
        "milliseconds": (time.perf_counter() - clock) * 1e3,
        "processor_milliseconds": (time.process_time() - processor) * 1e3,
    }
    file = str(folder / "file")
    return confined | {
        "call_nanoseconds": nanoseconds(os.getppid),
        "open_nanoseconds": nanoseconds(lambda: os.close(os.open(file, os.O_CREAT | os.O_RDWR))),
    }


def nanoseconds(call: Callable[[], object]) -> float:
    """CPU nanoseconds of one call."""
    started_at = time.process_time_ns()
    for _ in range(CALLS):
        call()
    return (time.process_time_ns() - started_at) / CALLS


if __name__ == "__main__":
    raise SystemExit(main())
