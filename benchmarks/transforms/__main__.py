"""Students of few bits and few bytes on MNIST.

    python -m benchmarks.transforms --data PATH/mnist.npz [--rows ROW …] [--seeds 0 1 2]

Every row is a job of the bare engine on one thread: a LeNet-5 teacher, and LeNet-5-half trained from random weights on 5,000 images (`half/…`), or
LeNet-5 that begins with the teacher's weights and trains on all 60,000 (`small/…`). The test split measures the student, and nothing is chosen on it. Bytes are those of real files;
`student.huffman` is decoded by the client and compared with the student. Rows are kept in `results/transforms/rows.jsonl`; a kept
row is not run again.
"""

import argparse
import json
import statistics
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import load, load_file, save_file

from benchmarks.bare_engine import job_file, keep_row, read_rows, run_engine, slug
from benchmarks.mnist import digits
from distillery_client.huffman_reading import to_safetensors
from models.spec.facts import DatasetFacts, Facts, TeacherFacts
from models.spec.job_spec import JobSpec, resolve

FEW = 5_000
CE: dict[str, Any] = {"name": "cross_entropy", "weight": 1.0}
TAUGHT = [{"name": "cross_entropy", "weight": 0.1}, {"name": "kd", "weight": 0.9, "temperature": 4.0}]
HALF = {"epochs": 25, "batch_size": 64, "optimizer": "adam", "learning_rate": 2e-3, "weight_decay": 0.0}
WHOLE = {"epochs": 4, "batch_size": 128, "optimizer": "adam", "learning_rate": 2e-3, "weight_decay": 0.0}


def bits(number: int, **more: Any) -> dict[str, Any]:
    return {"name": "quantise", "bits": number, **more}


TTQ = {"name": "quantise", "scheme": "ttq", "ends": "float"}
SPARSE = [
    {"name": "prune", "sparsity": 0.92, "begin": 0.0, "end": 0.5},
    {"name": "share", "convolution_bits": 5, "linear_bits": 4, "begin": 0.6},
]
ROWS: dict[str, dict[str, Any]] = {
    "half/ce/float32": {"objectives": [CE]},
    "half/ce/4 bits": {"objectives": [CE], "transforms": [bits(4)]},
    "half/ce/2 bits": {"objectives": [CE], "transforms": [bits(2)]},
    "half/kd/float32": {},
    "half/kd/8 bits": {"transforms": [bits(8)]},
    "half/kd/4 bits": {"transforms": [bits(4)]},
    "half/kd/2 bits": {"transforms": [bits(2)]},
    "half/kd/4 bits min-max": {"transforms": [bits(4, scheme="minmax")]},
    "half/kd/4 bits buckets": {"transforms": [bits(4, scheme="bucket")]},
    "half/kd/2 bits buckets": {"transforms": [bits(2, scheme="bucket")]},
    "half/ce/ternary": {"objectives": [CE], "transforms": [TTQ]},
    "half/kd/ternary": {"transforms": [TTQ]},
    "half/kd/4 bits, activations too": {"transforms": [bits(4, activations=4)]},
    "half/kd/2 bits, activations too": {"transforms": [bits(2, activations=2)]},
    "half/kd/ternary (apprentice b)": {"transforms": [TTQ], "procedure": {"name": "apprentice", "scheme": "b"}},
    "half/kd/ternary (apprentice a)": {"transforms": [TTQ], "procedure": {"name": "apprentice", "scheme": "a"}, "objectives": None},
    "half/kd/ternary (apprentice c)": {"transforms": [TTQ], "procedure": {"name": "apprentice", "scheme": "c"}},
    "half/kd/2 bits points (apprentice c)": {
        "transforms": [{"name": "learned_points", "bits": 2}], "procedure": {"name": "apprentice", "scheme": "c"},
    },
    "half/kd/4 bits points (apprentice c)": {
        "transforms": [{"name": "learned_points", "bits": 4}], "procedure": {"name": "apprentice", "scheme": "c"},
    },
    "half/kd/int8": {"transforms": [{"name": "int8"}], "exports": ["safetensors", "packed", "onnx"]},
    "small/kd/float32": {},
    "small/kd/factorised": {"transforms": [{"name": "factorise", "parameters": 27_000}], "training": {"epochs": 8}},
    "small/kd/pruned, shared": {"transforms": SPARSE, "exports": ["safetensors", "packed", "huffman"]},
    "small/kd/half of the channels": {"transforms": [{"name": "prune_channels", "keep": 0.5}]},
    "small/kd/int8": {"transforms": [{"name": "int8"}], "exports": ["safetensors", "packed", "onnx"]},
}  # fmt: skip


def main() -> int:
    arguments = _arguments()
    folder = arguments.results / "transforms"
    dataset = digits.canonical(arguments.data, arguments.results)
    weights, accuracy = digits.teacher(dataset, arguments.results)
    print(f"teacher: LeNet-5, {accuracy:.2%}", flush=True)
    few = _few(dataset, folder)
    kept = folder / "rows.jsonl"
    for seed in arguments.seeds:
        for name in arguments.rows or ROWS:
            row = {"row": name, "seed": seed}
            if not any(row.items() <= each.items() for each in read_rows(kept)):
                keep_row(
                    kept, row | run(name, seed, few if name.startswith("half") else dataset, dataset, weights, folder)
                )
    print(table(read_rows(kept)))
    return 0


def run(name: str, seed: int, images: Path, dataset: Path, weights: Path, folder: Path) -> dict[str, Any]:
    """One job: its student's accuracy, the bytes of its files and what the report says of them."""
    place = folder / slug(f"{name} {seed}")
    place.mkdir(parents=True, exist_ok=True)
    asked = {"objectives": TAUGHT, "exports": _exports(ROWS[name].get("transforms") or ())} | ROWS[name]
    alone = asked["objectives"] in (None, [CE])
    given = {
        "network": "lenet5",
        "options": {},
        "classes": digits.CLASSES,
        "input": digits.INPUT,
        "weights": str(weights),
    }
    path = place / "job.json"
    path.write_text(
        json.dumps(job_file(_spec(name, asked, seed, alone), None if alone else given, dataset, images), indent=1)
    )
    ran = run_engine(path)
    if ran.last["event"] != "done":
        raise SystemExit(f"{name}: {json.dumps(ran.last, indent=1)}")
    output = place / "output"
    report = json.loads((output / "report.json").read_text())
    found = {
        "accuracy": report["evaluation"]["student"]["accuracy"],
        "parameters": report["student"]["parameters"],
        "cpu_seconds": ran.cpu_seconds,
    }
    found["bytes"] = {file["name"]: file["bytes"] for file in report["student"]["files"]}
    made = report["transformed"] or {}
    found |= {key: made[key] for key in ("times_smaller", "onnx") if key in made}
    if (output / "student.huffman").exists():
        again, plain = (
            load(to_safetensors((output / "student.huffman").read_bytes())),
            load_file(output / "student.safetensors"),
        )
        found["decoded_exactly"] = again.keys() == plain.keys() and all(
            torch.equal(again[key], plain[key]) for key in plain
        )
    return found


def _exports(transforms: Sequence[Any]) -> list[str]:
    """Packed weights too, where transforms store codes."""
    coded = any(each["name"] not in ("factorise", "prune_channels") for each in transforms)
    return ["safetensors", "packed"] if coded else ["safetensors"]


def _spec(name: str, asked: dict[str, Any], seed: int, alone: bool) -> dict[str, Any]:
    """The resolved spec of a row."""
    half = name.startswith("half")
    teacher = None if alone else TeacherFacts("lenet5", digits.CLASSES, digits.INPUT)
    image = {"channels": 1, "height": 28, "width": 28}
    facts = Facts(
        teacher,
        DatasetFacts({"classes": digits.CLASSES, "image": image, "splits": {"train": FEW, "test": 10_000}}),
        None,
    )
    body = {
        "teacher": None if alone else "tch_" + "0" * 32,
        "dataset": "dts_" + "0" * 32,
        "student": {"network": "lenet5_half" if half else "lenet5", "initial_weights": "random" if half else "teacher"},
        "training": {**(HALF if half else WHOLE), **asked.get("training", {}), "seed": seed},
        **{key: value for key, value in asked.items() if value is not None and key != "training"},
    }
    if alone:
        body["student"] |= {"input": digits.INPUT}
    return resolve(JobSpec.model_validate(body), facts)


def _few(dataset: Path, folder: Path) -> Path:
    """The first 500 training images of each class."""
    path = folder / "mnist_5000.safetensors"
    if not path.exists():
        folder.mkdir(parents=True, exist_ok=True)
        tensors = load_file(dataset)
        label = tensors["train.label"].numpy()
        chosen = np.sort(np.concatenate([np.flatnonzero(label == digit)[: FEW // 10] for digit in range(10)]))
        names = {"class_names": json.dumps([str(digit) for digit in range(digits.CLASSES)])}
        save_file(
            {f"train.{key}": tensors[f"train.{key}"][chosen].contiguous() for key in ("image", "label")}, path, names
        )
    return path


def table(rows: list[dict[str, Any]]) -> str:
    """Markdown: mean and extremes of the accuracy over the seeds, and the largest size of the smallest file."""
    lines = [
        "| row | accuracy % (least to most) | seeds | smallest file, bytes | times smaller |",
        "|---|---|---|---|---|",
    ]
    for name in ROWS:
        own = [row for row in rows if row["row"] == name]
        if not own:
            continue
        accuracies = [100 * row["accuracy"] for row in own]
        smallest = max(
            (
                min(
                    (size, file)
                    for file, size in row["bytes"].items()
                    if file.startswith("student.") and not file.endswith(".py")
                )
            )
            for row in own
        )
        smaller = min((row.get("times_smaller") or {}).get(smallest[1], 1.0) for row in own)
        spread = f"{statistics.mean(accuracies):.2f} ({min(accuracies):.2f} to {max(accuracies):.2f})"
        lines.append(f"| {name} | {spread} | {len(own)} | `{smallest[1]}` {smallest[0]:,} | {smaller:.1f} |")
    return "\n".join(lines)


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.transforms", description=(__doc__ or "").splitlines()[0]
    )
    parser.add_argument("--data", type=Path, required=True, help="mnist.npz")
    parser.add_argument("--rows", nargs="+", choices=ROWS, help="only these")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--results", type=Path, default=digits.RESULTS, help="folder for the teacher and the results")
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
