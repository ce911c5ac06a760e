"""Runs the scripts behind the documentation's measurements, one after the other: `python -m benchmarks --data PATH/mnist.npz`.

The path may also be given in `MNIST`, as in `make bench MNIST=PATH/mnist.npz`. Five scripts are not included: `compare`
(`make compare`), `transforms` (docs/transforms.md), `datafree.robustness`, which needs rows and lengths, `datafree.cifar`, which needs CIFAR-10 and a GPU
(docs/datafree.md), and `initial_weights`, which needs CIFAR-10 too (docs/measured.md).
"""

import argparse
import os
import subprocess
import sys
from pathlib import Path

SCRIPTS = (
    "mnist.http",
    "mnist.experiment",
    "datafree",
    "datafree.cost",
    "mnist.label_transfer",
    "service.cost",
    "service.dashboard",
    "service.event_streams",
    "service.polling",
    "service.transfer",
    "service.million_jobs",
    "service.sandbox_cost",
)
WITH_MNIST = ("mnist.http", "mnist.experiment", "datafree", "datafree.cost", "mnist.label_transfer")


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, default=os.environ.get("MNIST"), help="mnist.npz")
    arguments = parser.parse_args()
    if arguments.data is None:
        parser.error("mnist.npz is missing: pass --data PATH, or run make bench MNIST=PATH")
    codes = []
    for name in SCRIPTS:
        data = ["--data", str(arguments.data)] if name in WITH_MNIST else []
        codes.append(subprocess.run([sys.executable, "-m", f"benchmarks.{name}", *data], check=False).returncode)
    return max(codes)


if __name__ == "__main__":
    sys.exit(main())
