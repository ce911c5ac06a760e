"""FSP's claim on transfer: if a student's features are first trained with a teacher of other classes, it reaches a loss in fewer steps.

The teacher is a LeNet-5 that classifies the digits 0 to 6. The student, a LeNet-5 too since FSP needs equal channels, learns
7, 8 and 9 from a few images of each. Its features are first matched to the teacher's (FSP, or a hint), without labels. Then
it trains with cross-entropy alone, as the baseline, which starts from random weights, does from its first step.
"""

import argparse
import io
import json
import statistics
import sys
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from safetensors.torch import load_file, save_file

from benchmarks.mnist import digits
from worker.distillation import networks
from worker.distillation.contract import read_contract
from worker.distillation.job import Job
from worker.distillation.process.event_pipe import Channel
from worker.distillation.run import Run

KNOWN, NEW = range(7), range(7, 10)
IMAGES_A_CLASS = 100
TEACHER_IMAGES = 20_000
TEACHER_STEPS = 400
FIRST, SECOND = (25, 100), 300
"""Steps on features, and steps on labels."""
LOSSES = (0.5, 0.2, 0.1)
SMOOTHED = 10
"""Number of logged losses, each a mean over some steps, whose mean must be below the threshold."""
TRAINING = {
    "batch_size": 50, "optimizer": "sgd", "learning_rate": 0.01, "momentum": 0.9, "weight_decay": 0.0,
    "schedule": "constant", "epochs": None,
}  # fmt: skip
FEATURES: dict[str, list[dict[str, Any]]] = {
    "FSP": [{"name": "fsp", "reduction": "mean", "weight": 1.0}],
    "hint": [{"name": "hint", "weight": 1.0, "taps": [["maxpool2", "maxpool2"]]}],
}


def main() -> int:
    arguments = _arguments()
    folder = arguments.results / "label_transfer"
    (folder / "inputs").mkdir(parents=True, exist_ok=True)
    with np.load(arguments.data, allow_pickle=False) as arrays:
        held = {name: torch.from_numpy(arrays[name]) for name in ("x_train", "y_train", "x_test", "y_test")}
    known = _teacher(held, folder / "inputs" / "teacher.safetensors")
    rows: dict[tuple[str, int], list[dict[str, Any]]] = {("scratch", 0): []}
    rows |= {(name, first): [] for name in FEATURES for first in FIRST}
    for seed in arguments.seeds:
        _write_new(held, folder / "inputs" / "dataset.safetensors", seed)
        for (name, first), runs in rows.items():
            runs.append(_run(name, first, seed, folder))
            print(name, first, seed, runs[-1], flush=True)
    named = {f"{name} after {first}": runs for (name, first), runs in rows.items()}
    metrics = {"teacher_accuracy": known, "seeds": arguments.seeds, "rows": named}
    (arguments.results / "label_transfer.json").write_text(json.dumps(metrics, indent=1) + "\n")
    print(f"teacher {known:.4f} on its own digits")
    for (name, first), runs in rows.items():
        print(f"{name:8} {_summary(runs, first)}")
    return 0


def _summary(runs: list[dict[str, Any]], before: int) -> str:
    """Median steps on labels until each loss is reached, steps on features, and the number of runs that reached it."""
    words = []
    for loss in LOSSES:
        steps = [run["steps_to"][str(loss)] for run in runs]
        reached = [step for step in steps if step is not None]
        median = statistics.median(reached) if reached else float("nan")
        words.append(f"{loss:g}: {median:g} (+{before}), {len(reached)} of {len(steps)}")
    return "; ".join(words) + f"; accuracy {statistics.mean(run['accuracy'] for run in runs):.4f}"


def _run(name: str, first: int, seed: int, folder: Path) -> dict[str, Any]:
    """Steps of cross-entropy until each loss is reached (None if it never is), and the accuracy at the end."""
    student = {"network": "lenet5", "options": {}, "classes": len(NEW)}
    two = {"name": "two_stage", "fraction": first / (first + SECOND), "first": FEATURES.get(name)}
    spec = {
        "task": "classification", "student": student, "source": {"name": "dataset"}, "transforms": [],
        "objectives": [{"name": "cross_entropy", "weight": 1.0}], "exports": ["safetensors"],
        "procedure": two if first else {"name": "direct"}, "evaluation": {"split": "test"},
        "training": TRAINING | {"seed": seed, "steps": first + SECOND},
    }  # fmt: skip
    teacher = {"network": "lenet5", "options": {}, "classes": len(KNOWN), "class_names": [str(each) for each in KNOWN],
               "input": digits.INPUT, "weights": "inputs/teacher.safetensors"}  # fmt: skip
    dataset = "inputs/dataset.safetensors"
    values = {
        "kind": "distill", "spec": spec, "teacher": teacher, "dataset": dataset, "evaluation": dataset, "device": "cpu",
        "checkpoint_seconds": 3600,
    }  # fmt: skip
    output = io.StringIO()
    summary = Run(Job(values, folder), Channel(output)).execute()
    events = [json.loads(line) for line in output.getvalue().splitlines()]
    losses = [
        (event["step"] - first, event["values"]["cross_entropy/cross_entropy"])
        for event in events
        if event["event"] == "metrics" and "cross_entropy/cross_entropy" in event["values"]
    ]
    return {"steps_to": {str(loss): _first_below(losses, loss) for loss in LOSSES}, "accuracy": summary["accuracy"]}


def _first_below(losses: list[tuple[int, float]], wanted: float) -> int | None:
    """The first step at which the mean of the last few losses is below `wanted`."""
    for end in range(SMOOTHED, len(losses) + 1):
        if statistics.mean(value for _, value in losses[end - SMOOTHED : end]) < wanted:
            return losses[end - 1][0]
    return None


def _teacher(held: dict[str, torch.Tensor], path: Path) -> float:
    """Train and save the teacher; returns its accuracy on test images of its own digits."""
    torch.manual_seed(0)
    network = networks.build("lenet5", len(KNOWN), read_contract(digits.INPUT), {})
    mine = torch.nonzero(held["y_train"] < len(KNOWN)).flatten()[:TEACHER_IMAGES]
    if path.exists():
        network.load_state_dict(load_file(path))
    else:
        optimizer = torch.optim.Adam(network.parameters(), 2e-3)
        for _ in range(TEACHER_STEPS):
            chosen = mine[torch.randint(len(mine), (128,))]
            loss = F.cross_entropy(network(_normalised(held["x_train"][chosen])), held["y_train"][chosen].long())
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        save_file(network.state_dict(), path)
    tested = torch.nonzero(held["y_test"] < len(KNOWN)).flatten()
    with torch.no_grad():
        answers = network.eval()(_normalised(held["x_test"][tested])).argmax(1)
    return float((answers == held["y_test"][tested]).float().mean())


def _normalised(image: torch.Tensor) -> torch.Tensor:
    padded = F.interpolate(image[:, None].float() / 255, size=(32, 32), mode="bilinear", antialias=True)
    return (padded - digits.INPUT["mean"][0]) / digits.INPUT["std"][0]


def _write_new(held: dict[str, torch.Tensor], path: Path, seed: int) -> None:
    """The student's dataset: a few images of each new digit, drawn with the seed, and all their test images."""
    draw = torch.Generator().manual_seed(seed)
    tensors = {}
    for split in ("train", "test"):
        rows = []
        for digit in NEW:
            own = torch.nonzero(held[f"y_{split}"] == digit).flatten()
            most = IMAGES_A_CLASS if split == "train" else len(own)
            rows.append(own[torch.randperm(len(own), generator=draw)[:most]])
        chosen = torch.cat(rows)
        tensors[f"{split}.image"] = held[f"x_{split}"][chosen][:, None].contiguous()
        tensors[f"{split}.label"] = held[f"y_{split}"][chosen].long() - NEW[0]
    save_file(tensors, path, {"class_names": json.dumps([str(digit) for digit in NEW])})


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.mnist.label_transfer", description=__doc__.splitlines()[0]
    )
    parser.add_argument("--data", type=Path, required=True, help="mnist.npz")
    parser.add_argument("--seeds", type=int, nargs="+", default=list(range(5)))
    parser.add_argument("--results", type=Path, default=digits.RESULTS, help="folder for the teacher and the results")
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
