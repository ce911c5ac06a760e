"""An experiment of four losses and three seeds on MNIST, submitted by one command to the service.

    python -m benchmarks.mnist.experiment --data PATH/mnist.npz

Starts an embedded service, uploads a LeNet-5 and 1,000 training images with the whole test split, and runs
`distillery experiments submit losses.yaml --watch`. Writes the table as Markdown and JSON to `results/mnist_experiment.md`
and `.json`. Requirement: all twelve jobs succeed.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import yaml

from benchmarks.mnist import digits
from distillery_client import Client
from docs.demo.service import service

ROOT = Path(__file__).parents[2]
COMMAND = "from distillery_client.command_line import main; main()"
IMAGES = 1000
GRID: dict[str, Any] = {
    "objectives": {
        "plain": [{"name": "cross_entropy", "weight": 1.0}],
        "KD": [{"name": "cross_entropy", "weight": 0.1}, {"name": "kd", "weight": 0.9, "temperature": 4.0}],
        "DKD": [{"name": "cross_entropy", "weight": 1.0}, {"name": "dkd", "weight": 1.0}],
        "DIST": [{"name": "cross_entropy", "weight": 1.0}, {"name": "dist", "weight": 1.0}],
    },
    "training.seed": [0, 1, 2],
}
TRAINING = {"steps": 600, "batch_size": 64, "optimizer": "adam", "learning_rate": 4e-3}


def main() -> int:
    arguments = _arguments()
    folder = arguments.results
    weights, accuracy = digits.teacher(digits.canonical(arguments.data, folder), folder)
    print(f"teacher: LeNet-5, {accuracy:.2%}", flush=True)
    data = Path(tempfile.mkdtemp(prefix="mnist-experiment-", dir=folder))
    with service(data), Client(data=data) as client:
        grid = write(client, arguments.data, weights, data)
        began = time.monotonic()
        table, code = submit(client, grid)
        seconds = time.monotonic() - began
        if arguments.pause:
            input(f"{client.url} is open; its key is in {data / 'key'}. Press Enter to stop. ")
    print(table, f"\n{seconds:.0f} s")
    (folder / "mnist_experiment.md").write_text(table)
    (folder / "mnist_experiment.json").write_text(json.dumps({"teacher": accuracy, "seconds": seconds}) + "\n")
    return code


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.mnist.experiment", description=(__doc__ or "").splitlines()[0]
    )
    parser.add_argument("--data", type=Path, required=True, help="mnist.npz")
    parser.add_argument("--results", type=Path, default=digits.RESULTS)
    parser.add_argument(
        "--pause", action="store_true", help="leave the service open until Enter, to look at its dashboard"
    )
    return parser.parse_args()


def write(client: Client, npz: Path, weights: Path, folder: Path) -> Path:
    """Upload the teacher and the images, and write the experiment as YAML; returns its path."""
    teacher = client.teachers.send(weights, network="lenet5", classes=10, input=digits.INPUT)
    dataset = client.datasets.send(few(npz, folder))
    student = {"network": "lenet5_half", "initial_weights": "random"}
    base = {"teacher": teacher["id"], "dataset": dataset["id"], "student": student, "training": TRAINING}
    path = folder / "losses.yaml"
    path.write_text(yaml.safe_dump({"name": "losses on 1,000 digits", "base": base, "grid": GRID}, sort_keys=False))
    return path


def few(npz: Path, folder: Path) -> Path:
    """The first images of each class, equally many, with the whole test split."""
    with np.load(npz, allow_pickle=False) as arrays:
        labels = arrays["y_train"]
        chosen = np.sort(np.concatenate([np.flatnonzero(labels == digit)[: IMAGES // 10] for digit in range(10)]))
        path = folder / "few.npz"
        kept = {name: arrays[name] for name in ("x_test", "y_test")}
        np.savez(path, x_train=arrays["x_train"][chosen], y_train=labels[chosen], **kept)
    return path


def submit(client: Client, grid: Path) -> tuple[str, int]:
    """Submit the experiment by the command line and follow it; returns its table and the exit code."""
    key = client.connection.http.headers["Authorization"].removeprefix("Bearer ")
    environment = os.environ | {"DISTILL_URL": client.url, "DISTILL_KEY": key, "PYTHONPATH": str(ROOT / "client")}
    command = [sys.executable, "-c", COMMAND, "experiments", "submit", str(grid), "--watch", "--baseline", "plain"]
    done = subprocess.run(command, env=environment, stdout=subprocess.PIPE, text=True, check=False)
    return done.stdout, done.returncode


if __name__ == "__main__":
    sys.exit(main())
