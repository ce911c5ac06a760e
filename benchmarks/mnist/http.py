"""MNIST through the service: upload a LeNet-5, distil LeNet-5-half with all data, with 1,000 images, and without data.

    python -m benchmarks.mnist.http --data PATH/mnist.npz [--parts full small start dafl]

Starts an embedded service with its own data folder and uses it as any client does. The last student of each job is
measured, and the test split only measures it. Requirements:

    full   KD with all 60,000 images reaches 98.6 %
    small  1,000 images and 600 steps: KD beats plain training by 1.5 points with each of 3 paired seeds
    start  the same without an optimiser in the spec: KD with the defaults beats KD with sgd's, with each of 3 seeds
    dafl   no data, random student, the service's defaults: mean of 3 seeds 96 %, worst 95 %, each within three minutes

The exit code is 0 if all requirements of the parts that ran hold. Writes `results/mnist_http.json`.
"""

import argparse
import json
import os
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.mnist import digits
from distillery_client import Client
from distillery_client.errors import JobEnded
from docs.demo.service import service

STUDENT = {"network": "lenet5_half", "initial_weights": "random"}
KD = [{"name": "cross_entropy", "weight": 0.1}, {"name": "kd", "weight": 0.9, "temperature": 4.0}]
PLAIN = [{"name": "cross_entropy", "weight": 1.0}]
FULL_LEAST = 0.986
SMALL_GAIN = 0.015
DAFL_MEAN = 0.96
DAFL_WORST = 0.95
DAFL_SECONDS = 180.0
SMALL_IMAGES, SEEDS = 1000, (0, 1, 2)
FULL_TRAINING = {"epochs": 6, "batch_size": 128, "optimizer": "adam", "learning_rate": 3e-3}
SMALL_STEPS = {"steps": 600, "batch_size": 64}
SMALL_TRAINING = {**SMALL_STEPS, "optimizer": "adam", "learning_rate": 4e-3}


def main() -> int:
    arguments = _arguments()
    folder = arguments.results
    weights, teacher_accuracy = digits.teacher(digits.canonical(arguments.data, folder), folder)
    print(f"teacher: LeNet-5, {teacher_accuracy:.2%}", flush=True)
    os.environ["DISTILL_ENGINE_THREADS"] = str(arguments.threads)
    data = Path(tempfile.mkdtemp(prefix="mnist-http-", dir=folder))
    with service(data), Client(data=data) as client:
        uploaded = Uploaded(client, arguments.data, weights, folder)
        results = {name: PARTS[name](uploaded) for name in arguments.parts}
    results["teacher_accuracy"] = teacher_accuracy
    (folder / "mnist_http.json").write_text(json.dumps(results, indent=2) + "\n")
    return 0 if all(results[name]["holds"] for name in arguments.parts) else 1


class Uploaded:
    """A service with the teacher and both datasets uploaded, and jobs on them."""

    def __init__(self, client: Client, npz: Path, weights: Path, folder: Path):
        self.client = client
        spec = {"network": "lenet5", "classes": digits.CLASSES, "input": digits.INPUT}
        self.teacher = client.teachers.send(weights, **spec)["id"]
        self.dataset = client.datasets.send(npz)["id"]
        self.small = client.datasets.send(_first_images(npz, folder / "mnist_1000.npz"))["id"]

    def job(self, name: str, **spec: Any) -> dict[str, Any]:
        """Run one job to its end; returns its summary, with the seconds from submission to the end.

        Raises:
            JobEnded: it did not succeed.
        """
        whole = {"name": name, "teacher": self.teacher, "student": STUDENT, "exports": ["safetensors"], **spec}
        whole.setdefault("evaluation", {"dataset": self.dataset, "split": "test"})
        ended = self.client.jobs.wait(self.client.jobs.submit(whole)["id"])
        if ended["status"] != "succeeded":
            raise JobEnded(ended)
        report = self.client.artifacts.download(ended["id"], "report.json", Path(tempfile.mkdtemp()))
        summary = json.loads(report.read_text())["summary"]
        metrics = {"accuracy": summary["accuracy"], "agreement": summary["agreement"], "seconds": summary["seconds"]}
        print(f"{name}: {metrics['accuracy']:.2%} in {metrics['seconds']:.0f} s", flush=True)
        return metrics


def full(uploaded: Uploaded) -> dict[str, Any]:
    metrics = uploaded.job("KD with all images", dataset=uploaded.dataset, objectives=KD, training=FULL_TRAINING)
    return {**metrics, "holds": metrics["accuracy"] >= FULL_LEAST}


def small(uploaded: Uploaded) -> dict[str, Any]:
    rows = []
    for seed in SEEDS:
        pair = {
            name: uploaded.job(
                f"{name}, 1,000 images, seed {seed}",
                dataset=uploaded.small,
                objectives=objectives,
                training=SMALL_TRAINING | {"seed": seed},
            )["accuracy"]
            for name, objectives in (("plain", PLAIN), ("kd", KD))
        }
        rows.append({"seed": seed, **pair, "gain": pair["kd"] - pair["plain"]})
        print(f"seed {seed}: KD gains {rows[-1]['gain'] * 100:.2f} points", flush=True)
    return {"rows": rows, "holds": all(row["gain"] >= SMALL_GAIN for row in rows)}


def start(uploaded: Uploaded) -> dict[str, Any]:
    rows = []
    for seed in SEEDS:
        row: dict[str, Any] = {"seed": seed}
        for name, choice in (("default", {}), ("sgd", {"optimizer": "sgd"})):
            training = SMALL_STEPS | choice | {"seed": seed}
            title = f"KD, optimiser {name}, 1,000 images, seed {seed}"
            row[name] = uploaded.job(title, dataset=uploaded.small, objectives=KD, training=training)["accuracy"]
        rows.append(row)
    return {"rows": rows, "holds": all(row["default"] > row["sgd"] for row in rows)}


def dafl(uploaded: Uploaded) -> dict[str, Any]:
    rows = [uploaded.job(f"DAFL, seed {seed}", training={"seed": seed}) for seed in SEEDS]
    accuracies = [row["accuracy"] for row in rows]
    mean = sum(accuracies) / len(rows)
    worst = min(accuracies)
    slowest = max(row["seconds"] for row in rows)
    print(f"DAFL: mean {mean:.2%}, worst {worst:.2%}, slowest {slowest:.0f} s", flush=True)
    holds = mean >= DAFL_MEAN and worst >= DAFL_WORST and slowest <= DAFL_SECONDS
    return {"rows": rows, "mean": mean, "worst": worst, "slowest_seconds": slowest, "holds": holds}


PARTS = {"full": full, "small": small, "start": start, "dafl": dafl}


def _first_images(npz: Path, path: Path) -> Path:
    """The first 100 training images of each class, as a separate dataset."""
    with np.load(npz, allow_pickle=False) as arrays:
        image, label = arrays["x_train"], arrays["y_train"]
    chosen = np.concatenate(
        [np.flatnonzero(label == name)[: SMALL_IMAGES // digits.CLASSES] for name in range(digits.CLASSES)]
    )
    np.savez_compressed(path, x_train=image[chosen], y_train=label[chosen])
    return path


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.mnist.http", description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, required=True, help="mnist.npz")
    parser.add_argument("--parts", nargs="+", choices=tuple(PARTS), default=list(PARTS))
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--results", type=Path, default=digits.RESULTS, help="folder for the teacher and the results")
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
