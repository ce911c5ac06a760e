"""Students for segmentation and depth on two cores.

    python -m benchmarks.dense --data FOLDER [--task segmentation] [--rows ROW …] [--seeds 0 1 2] [--rates 0.003 …]

`FOLDER` has `camvid.zip` and `kitchen_depth.zip`. Every row is a job of the bare engine on one thread. A teacher is trained first, on the
labels alone. Rates are compared on the validation images, with the same rates, seeds and steps for every row; the test images only measure.
Rows are kept in `results/dense/rows.jsonl`; a kept row is not run again.
"""

import argparse
import json
import statistics
import sys
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file

from benchmarks.bare_engine import job_file, keep_row, read_rows, run_engine, slug
from benchmarks.dense.data import TASKS, Data, canonical
from models.spec.facts import DatasetFacts, Facts, TeacherFacts
from models.spec.job_spec import JobSpec, resolve
from worker.distillation import networks, registry
from worker.distillation.contract import read_contract
from worker.distillation.data.images import Images

RESULTS = Path("results") / "dense"
TRUTH: dict[str, Any] = {"name": "pixel_cross_entropy"}
PIXELS: dict[str, Any] = {"name": "pixel_wise", "weight": 10.0}
PAIRS: dict[str, Any] = {"name": "pair_wise", "weight": 1.0}
DEPTH: dict[str, Any] = {"name": "depth_error"}
ROWS: dict[str, dict[str, list[dict[str, Any]]]] = {
    "segmentation": {
        "plain": [TRUTH],
        "pixel_wise": [TRUTH, PIXELS],
        "pixel_wise + pair_wise": [TRUTH, PIXELS, PAIRS],
        "pixel_wise + pair_wise + holistic": [TRUTH, PIXELS, PAIRS, {"name": "holistic", "weight": 0.1}],
        "attention_transfer": [TRUTH, {"name": "attention_transfer", "weight": 1000.0}],
        "nst": [TRUTH, {"name": "nst", "weight": 50.0}],
        "hint": [TRUTH, {"name": "hint", "weight": 1.0}],
    },
    "depth": {
        "plain": [DEPTH],
        "teacher's depth": [{**DEPTH, "weight": 0.5}, {**DEPTH, "weight": 0.5, "target": "teacher"}],
        "teacher's depth + pair_wise": [{**DEPTH, "weight": 0.5}, {**DEPTH, "weight": 0.5, "target": "teacher"}, PAIRS],
    },
}
TRAINING = {"batch_size": 16, "optimizer": "adamw", "weight_decay": 0.01, "warm_up_steps": 50}
TEACHER_RATE = 3e-3
FROM_SLICES = ", from slices"


def main() -> int:
    arguments = _arguments()
    data = TASKS[arguments.task]
    folder = arguments.results / arguments.task
    paths = {split: canonical(data, arguments.data, folder, split) for split in ("val", "test")}
    kept = folder / "rows.jsonl"
    weights = folder / "teacher" / "output" / "student.safetensors"
    if not weights.exists():
        row = {"row": "teacher", "epochs": arguments.teacher_epochs, "rate": TEACHER_RATE, "seed": 0}
        keep_row(kept, row | run(data, row, None, paths, folder / "teacher"))
    for seed in arguments.seeds:
        for rate in arguments.rates:
            for name in arguments.rows or rows_of(arguments.task):
                row = {"row": name, "epochs": arguments.epochs, "rate": rate, "seed": seed}
                if not any(row.items() <= each.items() for each in read_rows(kept)):
                    place = folder / slug(f"{name} {arguments.epochs} {rate} {seed}")
                    keep_row(kept, row | run(data, row, weights, paths, place))
    print(table(data, read_rows(kept)))
    return 0


def rows_of(task: str) -> list[str]:
    """All rows of a task; the last begins with slices of the teacher's weights, as jobs do by default."""
    names = list(ROWS[task])
    return [*names, names[1] + FROM_SLICES]


def run(data: Data, row: dict[str, Any], weights: Path | None, paths: dict[str, Path], place: Path) -> dict[str, Any]:
    """One job: the metrics of its student on the validation and the test images."""
    place.mkdir(parents=True, exist_ok=True)
    plain = row["row"] in ("plain", "teacher")
    options = data.teacher if row["row"] == "teacher" else data.student
    given = {"network": data.network, "options": data.teacher, "classes": data.classes, "input": data.input}
    given |= {"weights": str(weights.resolve()) if weights else "", "class_names": []}
    spec = _spec(data, row, options, plain)
    path = place / "job.json"
    dataset = paths["val"].resolve()
    path.write_text(json.dumps(job_file(spec, None if plain else given, dataset, dataset), indent=1))
    ran = run_engine(path)
    if ran.last["event"] != "done":
        raise SystemExit(f"{row}: {json.dumps(ran.last, indent=1)}")
    report = json.loads((place / "output" / "report.json").read_text())
    found = report["evaluation"]["student"]
    return {
        "val": {name: value for name, value in found.items() if "/" not in name},
        "test": measured(data, options, place / "output" / "student.safetensors", paths["test"]),
        "parameters": report["student"]["parameters"],
        "cpu_seconds": ran.cpu_seconds,
    }


@torch.no_grad()
def measured(data: Data, options: dict[str, Any], weights: Path, dataset: Path) -> dict[str, float]:
    """The metrics of a network on the test images."""
    contract = read_contract(data.input)
    network = networks.build(data.network, data.classes, contract, options)
    network.load_state_dict(load_file(weights))
    images = Images.load(dataset, "test", contract, "cpu")
    metrics = registry.find("tasks", data.task)().evaluate(network.eval(), images, 32)
    return {name: value for name, value in metrics.items() if "/" not in name}


def _spec(data: Data, row: dict[str, Any], options: dict[str, Any], plain: bool) -> dict[str, Any]:
    """The resolved spec of a row."""
    image = {key: data.input[key] for key in ("channels", "height", "width")}
    findings = {
        "classes": data.classes,
        "image": image,
        "splits": {"train": 1, "test": 1},
        "labels": data.options["labels"],
    }
    teacher = None if plain else TeacherFacts(data.network, data.classes, data.input)
    name = "plain" if row["row"] == "teacher" else row["row"]
    body = {
        "task": data.task,
        "teacher": None if plain else "tch_" + "0" * 32,
        "dataset": "dts_" + "0" * 32,
        "student": {
            "network": data.network,
            "options": options,
            "initial_weights": "teacher" if name.endswith(FROM_SLICES) else "random",
            **({"input": data.input} if plain else {}),
        },
        "objectives": ROWS[data.task][name.removesuffix(FROM_SLICES)],
        "training": {**TRAINING, "epochs": row["epochs"], "learning_rate": row["rate"], "seed": row["seed"]},
        "exports": ["safetensors"],
    }
    return resolve(JobSpec.model_validate(body), Facts(teacher, DatasetFacts(findings), None))


def table(data: Data, rows: list[dict[str, Any]]) -> str:
    """Markdown: mean and extremes of the metric on the validation and the test images, by row and rate."""
    lines = [
        "| row | rate | epochs | seeds | val (least to most) | test (least to most) |",
        "|---|---|---|---|---|---|",
    ]
    for key in dict.fromkeys((row["row"], row["rate"], row["epochs"]) for row in rows):
        own = [row for row in rows if (row["row"], row["rate"], row["epochs"]) == key]
        spreads = [_spread([row[split][data.metric] for row in own]) for split in ("val", "test")]
        lines.append(f"| {key[0]} | {key[1]:g} | {key[2]} | {len(own)} | {spreads[0]} | {spreads[1]} |")
    return "\n".join(lines)


def _spread(values: list[float]) -> str:
    return f"{statistics.mean(values):.4f} ({min(values):.4f} to {max(values):.4f})"


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.dense", description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--data", type=Path, required=True, help="the folder of the archives")
    parser.add_argument("--task", choices=TASKS, default="segmentation")
    parser.add_argument("--rows", nargs="+", help="only these")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--rates", type=float, nargs="+", default=[3e-3])
    parser.add_argument("--epochs", type=int, default=60)
    parser.add_argument("--teacher-epochs", type=int, default=100)
    parser.add_argument("--results", type=Path, default=RESULTS)
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
