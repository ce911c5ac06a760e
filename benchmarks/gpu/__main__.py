"""One run on a machine with a GPU: `python -m benchmarks.gpu PART --out FOLDER`, PART one of device, speed, datafree, tables.

A run takes at most `--minutes`. Its steps come in order of worth; one that would not fit into the rest of the time is not started.
Every result is a line of JSON in `FOLDER/rows.jsonl`, written at once. A second run with the same folder, or with the folder of
the first as `--earlier`, does what is missing. `--tiny` runs everything with tiny sizes, on a CPU too.
"""

import argparse
import sys
from collections.abc import Callable
from pathlib import Path

import torch

from benchmarks.gpu import datafree, device_checks, speed, tables
from benchmarks.gpu.prepare import CARRY
from benchmarks.gpu.results import Clock, Runs

PARTS: dict[str, Callable[[Runs, Path], None]] = {
    "device": device_checks.run,
    "speed": speed.run,
    "datafree": datafree.run,
    "tables": tables.run,
}


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.gpu", description=__doc__.splitlines()[0])
    parser.add_argument("parts", nargs="+", choices=PARTS, help="what to run, in this order")
    parser.add_argument("--out", type=Path, required=True, help="folder for the results")
    parser.add_argument("--carry", type=Path, default=CARRY, help="folder that prepare.py has filled")
    parser.add_argument("--earlier", type=Path, help="folder of an earlier run; by default the carried one")
    parser.add_argument("--minutes", type=float, default=9.0, help="longest duration of the run")
    parser.add_argument("--tiny", action="store_true", help="tiny sizes, to find mistakes before a GPU is used")
    parser.add_argument("--device", default="cuda", help="cuda or cpu")
    arguments = parser.parse_args()
    if arguments.device == "cuda" and not torch.cuda.is_available():
        print("There is no GPU; pass --device cpu --tiny to try the script.", file=sys.stderr)
        return 2
    earlier = arguments.earlier or arguments.carry / "earlier"
    runs = Runs(arguments.out, Clock(arguments.minutes), earlier, tiny=arguments.tiny, device=arguments.device)
    for part in arguments.parts:
        PARTS[part](runs, arguments.carry)
    print(f"{len(runs.rows)} rows, {runs.failed()} failed, {runs.clock.left():.0f} s left")
    return 1 if runs.failed() else 0


if __name__ == "__main__":
    sys.exit(main())
