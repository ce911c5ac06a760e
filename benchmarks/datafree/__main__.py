"""MNIST without data: the service's default, DAFL from both kinds of initial weights, its ablation, and its baselines.

    python -m benchmarks.datafree --data PATH/mnist.npz [--rows slices random ...] [--seeds 0 1 2 3 4]

Every row is one job of the bare engine on one thread. Nothing is chosen on the test split: it only measures the last student
and, if a row has one, the running average of its weights. Results are stored in `results/datafree.jsonl` and not measured
again, so the script can be stopped and resumed; `--list` only prints the stored results.
"""

import argparse
import json
import statistics
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file

from benchmarks.bare_engine import job_file, keep_row, read_rows, run_engine
from benchmarks.mnist import digits
from models.spec.facts import Facts, TeacherFacts
from models.spec.job_spec import JobSpec, resolve

TEACHERS: dict[str, dict[str, Any]] = {
    "adam": {"network_name": "lenet5", "optimizer": "adam", "seed": 0},
    "sgd": {"network_name": "lenet5", "optimizer": "sgd", "seed": 1},
    "mlp": {"network_name": "mlp", "optimizer": "sgd", "seed": 0},
}
"""The training of each teacher; see `benchmarks.mnist.digits.teacher`."""
FINDINGS = {"differentiable": True, "batch_norm": False, "homogeneous": False}
"""What an inspection finds of each teacher."""
HALF: dict[str, Any] = {"network": "lenet5_half", "options": {}}
HINTON: dict[str, Any] = {"network": "mlp", "options": {"hidden": [800, 800]}}
AVERAGE = 0.999
LONG: dict[str, Any] = {"name": "dafl", "adversarial_weight": 2.0}
FOUR_TIMES: dict[str, Any] = {"steps": 9_600, "learning_rate": 4e-3}
"""Source and training of long runs from random weights; weight and rate were the defaults when they were measured."""
LIKE_NOISE: dict[str, Any] = {
    "steps": 2_400, "batch_size": 256, "optimizer": "adam", "learning_rate": 4e-3, "weight_decay": 0.0,
    "final_learning_rate_fraction": 0.005, "warm_up_steps": 100,
}  # fmt: skip
"""Training settings of the synthesisers, for a source without its own."""


@dataclass(frozen=True)
class Row:
    """One experiment: its job without the seed. With `dataset`, it reads scikit-learn's handwritten digits, 1,797
    of 8 x 8 pixels, resized to the teacher's input."""

    initial: str
    teachers: tuple[str, ...] = ("adam",)
    student: Mapping[str, Any] = field(default_factory=lambda: HALF)
    source: Mapping[str, Any] = field(default_factory=lambda: {"name": "dafl"})
    training: Mapping[str, Any] = field(default_factory=dict)
    dataset: bool = False


def _without(*terms: str) -> dict[str, Any]:
    """DAFL without some of its terms, and without the adversarial term, which is not in its paper."""
    return {"name": "dafl", "adversarial_weight": 0.0} | {f"{term}_weight": 0.0 for term in terms}


ROWS: dict[str, Row] = {
    "default": Row("teacher", ("adam", "sgd"), source={"name": "auto"}),
    "slices": Row("teacher", ("adam", "sgd")),
    "random": Row("random", ("adam", "sgd")),
    "random, long": Row("random", ("adam", "sgd"), source=LONG | {"pool_images": 131_072}, training=FOUR_TIMES),
    "random, long, smaller pool": Row("random", ("adam", "sgd"), source=LONG, training=FOUR_TIMES),
    "all three terms": Row("random", source=_without()),
    "one-hot and entropy": Row("random", source=_without("activation")),
    "activation and entropy": Row("random", source=_without("one_hot")),
    "one-hot and activation": Row("random", source=_without("entropy")),
    "one-hot": Row("random", source=_without("activation", "entropy")),
    "entropy": Row("random", source=_without("one_hot", "activation")),
    "activation": Row("random", source=_without("one_hot", "entropy")),
    "no term": Row("random", source=_without("one_hot", "activation", "entropy")),
    "normal pixels": Row("random", source={"name": "noise"}),
    "other digits": Row("random", source={"name": "substitute"}, training=LIKE_NOISE, dataset=True),
    "Hinton's networks, slices": Row("teacher", ("mlp",), HINTON),
    "Hinton's networks": Row("random", ("mlp",), HINTON),
    "the teacher's architecture": Row("random", student={"network": "lenet5", "options": {}}),
}


def main() -> int:
    arguments = _arguments()
    arguments.results.mkdir(parents=True, exist_ok=True)
    dataset = digits.canonical(arguments.data, arguments.results)
    kept = arguments.results / "datafree.jsonl"
    for name, teacher, seed in _wanted(arguments):
        known = {(each["row"], each["teacher"], each["seed"]) for each in read_rows(kept)}
        if (name, teacher, seed) in known or arguments.list:
            continue
        found = run(name, teacher, seed, dataset, arguments.results)
        keep_row(kept, found)
    print(table(read_rows(kept)))
    return 0


def run(name: str, teacher: str, seed: int, dataset: Path, results: Path) -> dict[str, Any]:
    """One job of the engine; returns the student's accuracy, and wall-clock and CPU seconds."""
    row, (weights, accuracy) = ROWS[name], digits.teacher(dataset, results, **TEACHERS[teacher])
    place = results / "datafree" / f"{name}_{teacher}_{seed}"
    place.mkdir(parents=True, exist_ok=True)
    path = place / "job.json"
    path.write_text(json.dumps(job(row, teacher, seed, dataset.resolve(), weights.resolve()), indent=2))
    ran = run_engine(path)
    last = ran.last
    found = {"row": name, "teacher": teacher, "seed": seed, "initial": row.initial, "teacher_accuracy": accuracy}
    found |= {"seconds": ran.seconds, "cpu_seconds": ran.cpu_seconds}
    if last.get("fault") == "job":  # such as a collapse, which is a result too
        return found | {"error": last["message"]}
    if last["event"] != "done":
        raise SystemExit(f"{name}, {teacher}, seed {seed}: {json.dumps(last, indent=2)}")
    report = json.loads((place / "output" / "report.json").read_text())
    average = report["other_weights"]["evaluation"]["student"]["accuracy"]
    metrics = {name: report["evaluation"]["student"][name] for name in ("accuracy", "agreement")}
    balance = report["stages"][-1]["metrics"].get("generator/class_balance")
    return found | metrics | {"average": average, "class_balance": balance, "steps": report["stages"][-1]["steps"]}


def job(row: Row, teacher: str, seed: int, dataset: Path, weights: Path) -> dict[str, Any]:
    """The job file that a worker writes for the spec of a row, plus an evaluation."""
    network = TEACHERS[teacher]["network_name"]
    facts = Facts(teacher=TeacherFacts(network, digits.CLASSES, digits.INPUT, findings=FINDINGS))
    student = {**row.student, "initial_weights": row.initial}
    asked = {"teacher": "tch_" + "0" * 32, "student": student, "source": row.source}
    asked |= {"dataset": "dts_" + "0" * 32} if row.dataset else {}
    training = {"average_weights": AVERAGE, **row.training, "seed": seed}
    spec = resolve(JobSpec.model_validate(asked | {"training": training}), facts)
    given = {
        "network": network,
        "options": {},
        "classes": digits.CLASSES,
        "input": digits.INPUT,
        "weights": str(weights),
    }
    read = _digits(dataset.parent) if row.dataset else None
    return job_file(spec | {"evaluation": {"split": "test"}}, given, dataset, read, checkpoint_seconds=60)


def table(found: list[dict[str, Any]]) -> str:
    """The results as a Markdown table, one line for each row and teacher."""
    head = ("row", "teacher", "initial weights", "seeds", "mean", "worst", "mean of the average", "CPU seconds")
    lines = [f"| {' | '.join(head)} |", "|---" * len(head) + "|"]
    for name, row in ROWS.items():
        for teacher in row.teachers:
            runs = [each for each in found if (each["row"], each["teacher"]) == (name, teacher)]
            if runs:
                lines.append("| " + " | ".join(_cells(name, row, runs)) + " |")
    return "\n".join(lines)


def _cells(name: str, row: Row, runs: list[dict[str, Any]]) -> list[str]:
    """Cells of one line of the table; failed runs are counted but not averaged."""
    good = [run for run in runs if "accuracy" in run]
    failed = f", {len(runs) - len(good)} failed" if len(good) < len(runs) else ""
    average = [run["average"] for run in good if run.get("average") is not None]
    return [
        name,
        f"{runs[0]['teacher']}, {runs[0]['teacher_accuracy']:.2%}",
        row.initial,
        ", ".join(str(run["seed"]) for run in sorted(runs, key=lambda run: run["seed"])) + failed,
        f"{statistics.mean(run['accuracy'] for run in good):.2%}" if good else "",
        f"{min(run['accuracy'] for run in good):.2%}" if good else "",
        f"{statistics.mean(average):.2%}" if average else "",
        f"{statistics.mean(run['cpu_seconds'] for run in runs):.0f}",
    ]


def _wanted(arguments: argparse.Namespace) -> Iterator[tuple[str, str, int]]:
    for seed in arguments.seeds:
        for name in arguments.rows:
            for teacher in ROWS[name].teachers:
                yield name, teacher, seed


def _digits(folder: Path) -> Path:
    """scikit-learn's digits (Alpaydin, Kaynak, 1998) as a canonical dataset; they are not part of MNIST."""
    path = folder / "digits.safetensors"
    if not path.exists():
        from sklearn.datasets import load_digits

        image = torch.from_numpy(load_digits().images).mul(255 / 16).round().to(torch.uint8).unsqueeze(1).contiguous()
        label = torch.from_numpy(load_digits().target).long()
        save_file(
            {"train.image": image, "train.label": label}, path, {"class_names": json.dumps([str(n) for n in range(10)])}
        )
    return path


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.datafree", description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, required=True, help="mnist.npz")
    parser.add_argument("--rows", nargs="+", choices=list(ROWS), default=list(ROWS))
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2, 3, 4])
    parser.add_argument("--list", action="store_true", help="print the stored results and run nothing")
    parser.add_argument("--results", type=Path, default=digits.RESULTS, help="folder for teachers and results")
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
