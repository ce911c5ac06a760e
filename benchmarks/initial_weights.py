"""Random weights against slices of the teacher, with data: `python -m benchmarks.initial_weights --mnist mnist.npz --cifar cifar10.npz`.

Each setting trains a teacher once on all training images, then students of half its width from both initial weights with
the service's default objectives. `--cifar` may be left out. `cifar10.npz` has the arrays of MNIST's file, with images of
32x32x3. The test split measures the last student, and nothing is chosen on it. Rows are kept in `--results` and not run again.
"""

import argparse
import json
import shutil
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from benchmarks.bare_engine import job_file, keep_row, read_rows, run_engine, slug
from benchmarks.compare.protocols import CIFAR10, MNIST, RESIDUAL, Files, Protocol, images
from benchmarks.compare.rows import CE, named
from benchmarks.compare.runs import with_defaults

RESULTS = Path(__file__).parents[1] / "results" / "initial_weights"
INITIAL = ("random", "teacher")
OBJECTIVES = [{"name": "cross_entropy", "weight": 0.1}, named("kd", weight=0.9)]
ADAMW = {"batch_size": 64, "optimizer": "adamw", "learning_rate": 2e-3}
"""The service's default optimiser."""


@dataclass(frozen=True)
class Setting:
    """A pair of networks on some images. `steps` are lengths of the students' training."""

    name: str
    protocol: Protocol
    student: Mapping[str, Any]
    steps: tuple[int, ...]
    teacher_options: Mapping[str, Any] = field(default_factory=dict)


LENET = Setting("LeNet-5", MNIST, {"network": "lenet5_half", "options": {}}, (150, 600))
SMALL = replace(
    CIFAR10, name="cifar", teacher="resnet_cifar", device="cpu", seeds=MNIST.seeds,
    teacher_training={"steps": 1500, "batch_size": 128, "optimizer": "adamw", "learning_rate": 4e-3},
)  # fmt: skip
DEEP = {"depth": 14, "width": 16}
NARROW = {"network": "resnet_cifar", "options": {"depth": 14, "width": 8}}
RESNET = Setting("ResNet-14, 16 wide", SMALL, NARROW, (150,), DEEP)
DIGITS = Setting("ResNet-14, 16 wide, digits", replace(RESIDUAL, teacher="resnet_cifar"), NARROW, (150, 600), DEEP)
SETTINGS = (LENET, DIGITS, RESNET)


def main() -> int:
    arguments = _arguments()
    kept = arguments.results / "rows.jsonl"
    for setting in SETTINGS:
        npz = arguments.cifar if setting.protocol is SMALL else arguments.mnist
        if npz is None or setting.name not in arguments.only:
            continue
        files = images(setting.protocol, npz, arguments.results / setting.protocol.name)
        weights, accuracy = teacher(setting, files, arguments.results / setting.protocol.name)
        for steps in setting.steps:
            for seed in arguments.seeds:
                for initial in INITIAL:
                    row = {"setting": setting.name, "steps": steps, "seed": seed, "initial": initial}
                    if not any(row.items() <= each.items() for each in read_rows(kept)):
                        metrics = student(row, setting, files, weights, arguments.results / slug(str(row)))
                        keep_row(kept, row | {"teacher_accuracy": accuracy} | metrics)
    print(table(read_rows(kept)))
    return 0


def teacher(setting: Setting, files: Files, folder: Path) -> tuple[Path, float]:
    """The teacher's weights, trained once on all training images, and its accuracy on the test split."""
    protocol, path = setting.protocol, folder / "teacher.safetensors"
    if not path.exists():
        network = {"network": protocol.teacher, "options": dict(setting.teacher_options), "input": protocol.input}
        spec = _spec(network | {"classes": protocol.classes}, [CE], protocol.teacher_training, protocol.augmentation)
        metrics = _run(folder / "teacher", job_file(spec | {"teacher": None}, None, files.test, files.whole))
        path.with_suffix(".json").write_text(json.dumps(metrics))
        shutil.copy(folder / "teacher" / "output" / "student.safetensors", path)
    return path, float(json.loads(path.with_suffix(".json").read_text())["accuracy"])


def student(row: Mapping[str, Any], setting: Setting, files: Files, weights: Path, place: Path) -> dict[str, Any]:
    """The metrics of one student on the test split."""
    protocol = setting.protocol
    network = {**setting.student, "initial_weights": row["initial"]}
    training = ADAMW | {"steps": row["steps"], "seed": row["seed"]}
    spec = _spec(network, OBJECTIVES, training, protocol.augmentation)
    given = {
        "network": protocol.teacher, "options": dict(setting.teacher_options), "classes": protocol.classes,
        "input": protocol.input, "weights": str(weights.resolve()),
    }  # fmt: skip
    return _run(place, job_file(spec, given, files.test.resolve(), files.train[row["seed"]].resolve()))


def _spec(
    network: Mapping[str, Any], objectives: list[Any], training: Mapping[str, Any], augmentation: str
) -> dict[str, Any]:
    return with_defaults(
        {
            "task": "classification", "teacher": "tch_benchmark", "dataset": "dts_benchmark", "student": dict(network),
            "source": {"name": "dataset", "augmentation": augmentation}, "objectives": objectives,
            "procedure": {"name": "direct"}, "transforms": [], "training": dict(training),
            "evaluation": {"split": "test"}, "exports": ["safetensors"],
        }
    )  # fmt: skip


def _run(place: Path, job: dict[str, Any]) -> dict[str, Any]:
    shutil.rmtree(place, ignore_errors=True)
    place.mkdir(parents=True)
    paths = {name: str(Path(job[name]).resolve()) for name in ("dataset", "evaluation")}
    (place / "job.json").write_text(json.dumps(job | paths, indent=1))
    ran = run_engine(place / "job.json")
    if ran.last["event"] != "done":
        raise SystemExit(f"{place}: {json.dumps(ran.last, indent=1)}")
    report = json.loads((place / "output" / "report.json").read_text())
    return {**report["evaluation"]["student"], "cpu_seconds": ran.cpu_seconds}


def table(rows: list[dict[str, Any]]) -> str:
    """The accuracies as a Markdown table: a line for each setting and length, with all seeds."""
    lines = ["| teacher | steps | random | slices of the teacher |", "|---|---|---|---|"]
    for name, steps in dict.fromkeys((row["setting"], row["steps"]) for row in rows):
        own = [row for row in rows if (row["setting"], row["steps"]) == (name, steps)]
        cells = [", ".join(f"{row['accuracy']:.2%}" for row in own if row["initial"] == initial) for initial in INITIAL]
        lines.append(f"| {name} ({own[0]['teacher_accuracy']:.2%}) | {steps} | {' | '.join(cells)} |")
    return "\n".join(lines)


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.initial_weights", description=__doc__.splitlines()[0])
    parser.add_argument("--mnist", type=Path, help="mnist.npz")
    parser.add_argument("--cifar", type=Path, help="cifar10.npz")
    parser.add_argument("--only", nargs="+", default=[setting.name for setting in SETTINGS], help="settings to run")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--results", type=Path, default=RESULTS, help="folder for the teachers and the results")
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
