"""Blood cells: a detector distilled, with every student tuned alike.

    python -m benchmarks.dense.detection --data PATH/blood_cells.zip [--rows plain chen_mimic ...] [--seeds 0 1 2]

Trains a teacher of about half a million parameters on the training images, then students of about 63,000 with several objectives,
at equal learning rates and steps. `--tune` measures rates on the validation images, with which `--rate` is chosen; everything else
is measured on the test images. Every row is one job of the bare engine. Results are stored in `results/detection.jsonl` and not
measured again, so the script can be stopped and resumed; `--list` only prints the stored results.
"""

import argparse
import json
import statistics
import sys
import zipfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from benchmarks.bare_engine import job_file, keep_row, read_rows, run_engine
from worker.distillation.data.packed import Options
from worker.distillation.data.reading.uploads import read_dataset
from worker.distillation.limits import UploadLimits

INPUT = {"channels": 3, "height": 120, "width": 160, "mean": [0.66, 0.64, 0.68], "std": [0.13, 0.14, 0.07]}
TEACHER = {"width": 24, "features": 48, "hidden": 180}
TEACHER_STEPS = 900
BATCH = 8
STEPS = 300
LABELS = {"name": "detection_loss", "weight": 1.0}
CHEN: tuple[Mapping[str, Any], ...] = (
    {**LABELS, "classification": 0.5},
    {"name": "soft_detection", "weight": 0.5},
    {"name": "bounded_boxes", "weight": 0.5},
    {"name": "hint", "weight": 0.5},
)
MIMIC = {"name": "roi_mimic", "weight": 1.0}
ROWS: dict[str, tuple[Mapping[str, Any], ...]] = {
    "plain": (LABELS,),
    "chen": CHEN,
    "mimic": (LABELS, MIMIC),
    "chen_mimic": (*CHEN, MIMIC),
    "nst": (LABELS, {"name": "nst", "weight": 50.0}),
    "attention": (LABELS, {"name": "attention_transfer", "weight": 1000.0}),
}
"""Objectives of the students, by row."""
RATE = 0.04
KEPT = ("map", "map50", "map75", "map/RBC", "map/WBC", "map/Platelets", "agreement")


def main() -> int:
    arguments = _arguments()
    arguments.results.mkdir(parents=True, exist_ok=True)
    kept = arguments.results / "detection.jsonl"
    data = {split: canonical(arguments.data, split, arguments.results) for split in ("val", "test")}
    for each in _wanted(arguments):
        if (
            any(all(row.get(name) == value for name, value in each.items()) for row in read_rows(kept))
            or arguments.list
        ):
            continue
        teacher = (
            None
            if each["row"] == "teacher"
            else arguments.results / "detection" / _name(_teacher()) / "output/student.safetensors"
        )
        found = run(each, data[each["split"]], teacher, arguments.results, arguments.threads)
        keep_row(kept, each | found)
    print(table(read_rows(kept)))
    return 0


def canonical(data: Path, split: str, results: Path) -> Path:
    """The dataset in its canonical form, with the images of `split` as its test split."""
    path = results / f"blood_cells_{split}.safetensors"
    if path.exists():
        return path
    other = {"val": "test", "test": "val"}[split]
    fewer = results / f"blood_cells_{split}.zip"
    with zipfile.ZipFile(data) as whole, zipfile.ZipFile(fewer, "w") as part:
        for name in whole.namelist():
            if f"/{other}" not in name:
                part.writestr(name, whole.read(name))
    read_dataset(fewer, Options(labels="boxes"), UploadLimits()).write(path)
    return path


def run(each: Mapping[str, Any], dataset: Path, teacher: Path | None, results: Path, threads: int) -> dict[str, Any]:
    """One job of the engine: the student's metrics, and wall-clock and CPU seconds."""
    place = results / "detection" / _name(each)
    place.mkdir(parents=True, exist_ok=True)
    path = place / "job.json"
    path.write_text(json.dumps(job(each, dataset.resolve(), teacher and teacher.resolve(), threads), indent=2))
    ran = run_engine(path)
    if ran.last["event"] != "done":
        raise SystemExit(f"{_name(each)}: {json.dumps(ran.last, indent=2)}")
    report = json.loads((place / "output" / "report.json").read_text())
    metrics = report["evaluation"]["student"]
    found = {name: metrics[name] for name in KEPT if name in metrics}
    return found | {
        "parameters": report["student"]["parameters"],
        "seconds": ran.seconds,
        "cpu_seconds": ran.cpu_seconds,
    }


def job(each: Mapping[str, Any], dataset: Path, teacher: Path | None, threads: int) -> dict[str, Any]:
    """The job file."""
    is_teacher = teacher is None
    spec = {
        "task": "detection",
        "student": {"network": "tiny_faster_rcnn", "options": TEACHER if is_teacher else {}, "classes": 3, "input": INPUT},
        "source": {"name": "dataset", "augmentation": "scale_crop_flip"},
        "objectives": list(ROWS["plain" if is_teacher else each["row"]]),
        "procedure": {"name": "direct"},
        "transforms": [],
        "exports": ["safetensors"],
        "evaluation": {"split": "test"},
        "training": {
            "steps": each["steps"], "batch_size": BATCH, "optimizer": "sgd", "learning_rate": each["rate"], "momentum": 0.9,
            "weight_decay": 1e-4, "schedule": "cosine", "warm_up_steps": 100, "gradient_clip": 10.0, "seed": each["seed"],
        },
    }  # fmt: skip
    given = {
        "network": "tiny_faster_rcnn", "options": TEACHER, "classes": 3, "class_names": ["RBC", "WBC", "Platelets"],
        "input": INPUT, "weights": str(teacher),
    }  # fmt: skip
    return job_file(spec, None if is_teacher else given, dataset, dataset, threads=threads, checkpoint_seconds=60)


def _teacher() -> dict[str, Any]:
    return {"row": "teacher", "split": "test", "steps": TEACHER_STEPS, "rate": RATE, "seed": 0}


def _wanted(arguments: argparse.Namespace) -> Iterator[dict[str, Any]]:
    yield _teacher()
    for rate in arguments.tune or ():
        for row in arguments.rows:
            yield {"row": row, "split": "val", "steps": STEPS, "rate": rate, "seed": 0}
    if arguments.tune:
        return
    for steps in arguments.steps:
        for seed in arguments.seeds:
            for row in arguments.rows:
                yield {"row": row, "split": "test", "steps": steps, "rate": arguments.rate, "seed": seed}


def _name(each: Mapping[str, Any]) -> str:
    return "_".join(str(each[name]) for name in ("row", "split", "steps", "rate", "seed"))


def table(rows: list[dict[str, Any]]) -> str:
    """Mean and standard deviation over seeds by row, split, steps and rate."""
    groups: dict[tuple[Any, ...], list[dict[str, Any]]] = {}
    for row in rows:
        groups.setdefault((row["row"], row["split"], row["steps"], row["rate"]), []).append(row)
    lines = ["row | split | steps | rate | seeds | mAP | mAP50"]
    for key, group in sorted(groups.items(), key=lambda pair: (pair[0][1], pair[0][2], pair[0][0])):
        shown = [_shown([row[name] for row in group]) for name in ("map", "map50")]
        lines.append(" | ".join([*map(str, key), str(len(group)), *shown]))
    return "\n".join(lines)


def _shown(values: list[float]) -> str:
    return f"{statistics.mean(values):.3f}" + (f" ± {statistics.stdev(values):.3f}" if len(values) > 1 else "")


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.dense.detection", description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, required=True, help="blood_cells.zip")
    parser.add_argument("--rows", nargs="+", choices=list(ROWS), default=["plain", "chen_mimic"])
    parser.add_argument("--seeds", type=int, nargs="*", default=[0, 1, 2])
    parser.add_argument("--steps", type=int, nargs="+", default=[STEPS, 2 * STEPS])
    parser.add_argument("--tune", type=float, nargs="+", help="learning rates to compare on the validation images")
    parser.add_argument("--rate", type=float, default=RATE, help="learning rate of the students")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--results", type=Path, default=Path("results"))
    parser.add_argument("--list", action="store_true", help="print the stored results only")
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
