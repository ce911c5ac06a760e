"""From submission to the first step: `python -m benchmarks.photographs.first_step --folder FOLDER [small] [photographs]`.

The service runs on this machine. Two jobs on the same dataset, one after the other, and the bytes that each has fetched into its
own folder: `small` with 60,000 images of 3 x 32 x 32, `photographs` with 2,000 photographs made by code and networks at 224 pixels.
"""

import argparse
import json
import os
import shutil
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import save_file

from benchmarks.photographs.made import write_zip
from distillery_client import Client
from docs.demo.service import service
from worker.distillation import networks
from worker.distillation.contract import read_contract

SMALL = {"channels": 3, "height": 32, "width": 32, "mean": [0.5] * 3, "std": [0.25] * 3}
LARGE = SMALL | {"height": 224, "width": 224}
PARTS = ("small", "photographs")


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.photographs.first_step", description=__doc__)
    parser.add_argument("--folder", type=Path, required=True)
    parser.add_argument("parts", nargs="*", default=PARTS, metavar="PART", help=", ".join(PARTS))
    asked = parser.parse_args()
    asked.folder.mkdir(parents=True, exist_ok=True)
    data = Path(tempfile.mkdtemp(prefix="first-step-", dir=asked.folder))
    os.environ["DISTILL_ENGINE_THREADS"] = "1"
    try:
        with service(data), Client(data=data) as client:
            for part in asked.parts:
                upload = small(asked.folder) if part == "small" else write_zip(asked.folder / "2000.zip", 2000)
                print(json.dumps({part: measure(client, upload, asked.folder, part)}), flush=True)
    finally:
        shutil.rmtree(data, ignore_errors=True)


def small(folder: Path) -> Path:
    """60,000 random images of 32 x 32 pixels with ten classes."""
    path = folder / "small.npz"
    if not path.exists():
        draw = np.random.default_rng(0)
        image = draw.integers(0, 256, (60_000, 32, 32, 3), dtype=np.uint8)
        np.savez(path, x_train=image, y_train=np.arange(60_000) % 10)
    return path


def measure(client: Client, upload: Path, folder: Path, part: str) -> dict[str, Any]:
    """Seconds of the inspection, and of two jobs from submission to their first progress."""
    began = time.monotonic()
    options = {} if part == "small" else {"form": "jpeg"}
    dataset = client.datasets.send(upload, options=options)
    inspected = time.monotonic() - began
    name, contract = ("resnet8_cifar", SMALL) if part == "small" else ("torchvision/resnet18", LARGE)
    torch.manual_seed(0)
    weights = folder / "teacher.safetensors"
    save_file(networks.build(name, 10, read_contract(contract), {}).state_dict(), weights)
    others = [f"other {number}" for number in range(10)]  # so that nobody asks how well it knows the images
    teacher = client.teachers.send(weights, network=name, classes=10, input=contract, class_names=others)
    spec = {
        "teacher": teacher["id"], "dataset": dataset["id"], "student": {"network": name, "initial_weights": "random", "classes": 10},
        "objectives": [{"name": "kd", "weight": 1.0}], "training": {"steps": 4, "batch_size": 16}, "contract": "trust",
        "source": {"name": "substitute"} if part == "small" else {"name": "dataset", "augmentation": "consistent"}, "exports": ["safetensors"],
    }  # fmt: skip
    return {"inspection": round(inspected, 1), "jobs": [first_step(client, spec) for _ in range(2)]}


def first_step(client: Client, spec: dict[str, Any]) -> dict[str, Any]:
    """Seconds from submission until the job runs and until its first step; how it ended."""
    began = time.monotonic()
    job = client.jobs.submit(spec)
    started = first = None
    for event in client.jobs.watch(job["id"]):
        now = round(time.monotonic() - began, 2)
        if started is None and "engine has started" in event.get("message", ""):
            started = now
        if first is None and event.get("type") == "progress":
            first = now
    ended = client.jobs.wait(job["id"])
    return {"engine_has_loaded": started, "first_step": first, "status": ended["status"], "error": ended.get("error")}


if __name__ == "__main__":
    main()
