"""The scripts behind the documentation's figures, one after the other: `python -m benchmarks --data PATH/mnist.npz`.

The path may also stand in `MNIST`, as for `make bench MNIST=PATH/mnist.npz`. Not among them are `compare` (`make compare`),
and `datafree.robustness` and `datafree.cifar`, of which one wants rows and lengths and the other images and a GPU: see docs/datafree.md.
"""

import argparse
import os
import subprocess
import sys
from pathlib import Path

SCRIPTS = (
    "mnist.http",
    "datafree",
    "datafree.cost",
    "mnist.label_transfer",
    "service.cost",
    "service.event_streams",
    "service.transfer",
    "service.million_jobs",
    "service.sandbox_cost",
)
WITH_MNIST = ("mnist.http", "datafree", "datafree.cost", "mnist.label_transfer")


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, default=os.environ.get("MNIST"), help="mnist.npz")
    arguments = parser.parse_args()
    if arguments.data is None:
        parser.error("say where mnist.npz lies: --data PATH, or make bench MNIST=PATH")
    codes = []
    for name in SCRIPTS:
        data = ["--data", str(arguments.data)] if name in WITH_MNIST else []
        codes.append(subprocess.run([sys.executable, "-m", f"benchmarks.{name}", *data], check=False).returncode)
    return max(codes)


if __name__ == "__main__":
    sys.exit(main())
