"""Distillation without data from twelve teachers, trained here on real images, and from one with a constant output.

    python -m benchmarks.datafree.robustness [--rows NAME …] [--sources auto dafl 'dafl entropy_weight=20' …] [--steps 1200] [--seeds 0 …]

The images are scikit-learn's digits (1,797 of 8 x 8 pixels), scaled, coloured, or two side by side. Every row is one job of
the bare engine on one thread. Its spec sets only the student and the length; the service chooses source and initial
weights. Nothing is chosen on real images: they measure the agreement of student and teacher on those
that the teacher was not trained on. Results are stored in `results/robustness.jsonl` and not measured again.
"""

import argparse
import json
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from safetensors.torch import load_file, save_file
from sklearn.datasets import load_digits
from torch import Tensor, nn

from benchmarks.bare_engine import job_file, keep_row, method_asked, read_rows, run_engine, slug
from models.spec.facts import Facts, TeacherFacts
from models.spec.job_spec import JobSpec, resolve
from worker.distillation import networks
from worker.distillation.contract import InputContract, read_contract
from worker.distillation.introspection.gradients import source_findings

RESULTS = Path(__file__).parents[2] / "results" / "robustness"
TRAINED_ON = 1347
PAIRS = (6000, 1000)
CONSTANT = "constant output"


@dataclass(frozen=True)
class Row:
    """A teacher, its training data, and a student."""

    network: str
    student: str
    images: str = "digits"
    channels: int = 1
    height: int = 16
    width: int = 16
    options: Mapping[str, Any] = field(default_factory=dict)
    student_options: Mapping[str, Any] = field(default_factory=dict)
    epochs: int = 20

    @property
    def contract(self) -> InputContract:
        return read_contract(self.input)

    @property
    def input(self) -> dict[str, Any]:
        sizes = {"channels": self.channels, "height": self.height, "width": self.width}
        return sizes | {"mean": [0.3] * self.channels, "std": [0.35] * self.channels}


WHOLE = {"first": 6, "second": 16, "third": 120, "hidden": 84}
SMALL = {"depth": 8, "width": 8}
ROWS: dict[str, Row] = {
    "LeNet-5": Row("lenet5", "lenet5_half", height=32, width=32),
    "LeNet-5 with BatchNorm": Row("lenet", "lenet5_half", height=24, width=24, options={**WHOLE, "batch_norm": True}),
    "LeNet-5, tanh and average pooling": Row("lenet", "lenet5_half", height=28, width=28, options={**WHOLE, "activation": "tanh", "pooling": "average"}),
    "LeNet-5, 2 classes": Row("lenet5", "lenet5_half", "even", height=20, width=20),
    "LeNet-5, colour": Row("lenet5", "lenet5_half", channels=3, height=28, width=28),
    "LeNet-5, 100 classes": Row("lenet5", "lenet5_half", "pairs", height=16, width=32),
    "MLP": Row("mlp", "mlp", options={"hidden": [256, 128]}, student_options={"hidden": [128, 64]}),
    "ResNet-8": Row("resnet8_cifar", "resnet_cifar", student_options=SMALL),
    "VGG-8 of 16 channels, 5 classes, colour": Row("vgg_cifar", "resnet_cifar", "five", channels=3, options={"depth": 8, "width": 16}, student_options=SMALL),
    "WRN-10-2": Row("wrn_cifar", "resnet_cifar", options={"depth": 10, "factor": 2}, student_options=SMALL, epochs=8),
    "timm's test_resnet, 96 pixels": Row("timm/test_resnet", "resnet_cifar", channels=3, height=96, width=96, student_options=SMALL, epochs=12),
    "timm's test_convnext": Row("timm/test_convnext", "lenet5_half", channels=3, height=32, width=32, epochs=30),
    CONSTANT: Row("lenet5", "lenet5_half"),
}  # fmt: skip


def main() -> int:
    arguments = _arguments()
    arguments.results.mkdir(parents=True, exist_ok=True)
    kept = arguments.results.with_suffix(".jsonl")
    for source in arguments.sources:
        for name in arguments.rows:
            known = {(each["row"], each["asked"], each["steps"], each["seed"]) for each in read_rows(kept)}
            for seed in arguments.seeds:
                if (name, source, arguments.steps, seed) in known or arguments.list:
                    continue
                found = run(name, source, arguments.steps, seed, arguments.results)
                keep_row(kept, found)
    print(table(read_rows(kept)))
    return 0


def run(name: str, source: str, steps: int, seed: int, results: Path) -> dict[str, Any]:
    """One job; returns the choices, the agreement of student and teacher, and the seconds."""
    row, (dataset, classes) = ROWS[name], write_images(ROWS[name], results)
    weights, accuracy = teacher(name, row, dataset, classes, results)
    place = results / slug(f"{name}, {source}, {steps}, {seed}")
    place.mkdir(parents=True, exist_ok=True)
    content = job(row, source, steps, seed, classes, dataset.resolve(), weights.resolve())
    (place / "job.json").write_text(json.dumps(content, indent=1))
    ran = run_engine(place / "job.json")
    last, spec = ran.last, content["spec"]
    found: dict[str, Any] = {
        "row": name, "asked": source, "steps": steps, "seed": seed, "classes": classes, "teacher_accuracy": accuracy,
        "source": spec["source"]["name"], "initial_weights": spec["student"].get("initial_weights"),
        "seconds": ran.seconds, "cpu_seconds": ran.cpu_seconds,
    }  # fmt: skip
    if last["event"] != "done":
        return found | {"error": last.get("code", last["event"]), "message": last["message"]}
    report = json.loads((place / "output" / "report.json").read_text())
    return found | {name: report["evaluation"]["student"][name] for name in ("accuracy", "agreement")}


def job(row: Row, source: str, steps: int, seed: int, classes: int, dataset: Path, weights: Path) -> dict[str, Any]:
    """The job file that a worker writes, plus an evaluation."""
    network = _load(row, classes, weights)
    example = row.contract.blank(torch.device("cpu"))
    facts = Facts(teacher=TeacherFacts(row.network, classes, row.input, row.options, source_findings(network, example)))
    asked = {
        "teacher": "tch_" + "0" * 32,
        "student": {"network": row.student, "options": dict(row.student_options)},
        "source": method_asked(source),
        "training": {"steps": steps, "seed": seed},
        "exports": ["safetensors"],
    }
    spec = resolve(JobSpec.model_validate(asked), facts) | {"evaluation": {"split": "test"}}
    given = {
        "network": row.network, "options": dict(row.options), "classes": classes, "input": row.input,
        "weights": str(weights),
    }  # fmt: skip
    return job_file(spec, given, dataset)


def write_images(row: Row, folder: Path) -> tuple[Path, int]:
    """A canonical dataset of the row's images at the row's size; returns its path and the number of classes."""
    digits = load_digits()
    image = torch.from_numpy(digits.images).float() / 16
    label = torch.from_numpy(digits.target.astype(np.int64))
    draw = torch.Generator().manual_seed(0)
    order = torch.randperm(len(image), generator=draw)
    parts = {"train": order[:TRAINED_ON], "test": order[TRAINED_ON:]}
    tensors: dict[str, Tensor] = {}
    for (split, rows), pairs in zip(parts.items(), PAIRS, strict=True):
        shown, meant = image[rows], label[rows]
        if row.images == "pairs":
            left, right = torch.randint(len(rows), (2, pairs), generator=draw)
            shown, meant = torch.cat([shown[left], shown[right]], dim=2), 10 * meant[left] + meant[right]
        meant = {"even": meant % 2, "five": meant // 2}.get(row.images, meant)
        sized = F.interpolate(shown[:, None], (row.height, row.width), mode="bilinear", antialias=True).clamp(0, 1)
        if row.channels == 3:
            ink, paper = torch.rand(2, len(sized), 3, 1, 1, generator=draw)
            sized = sized * (0.6 + 0.4 * ink) + (1 - sized) * 0.3 * paper
        tensors |= {f"{split}.image": (255 * sized).round().byte().contiguous(), f"{split}.label": meant}
    classes = int(tensors["train.label"].max()) + 1
    path = folder / f"{row.images}_{row.channels}x{row.height}x{row.width}.safetensors"
    save_file(tensors, path, {"class_names": json.dumps([str(number) for number in range(classes)])})
    return path, classes


def teacher(name: str, row: Row, dataset: Path, classes: int, folder: Path) -> tuple[Path, float]:
    """Train the row's teacher, once; returns the path of its weights, and its accuracy on images that it has not seen."""
    path = folder / f"teacher_{slug(name)}.safetensors"
    torch.manual_seed(0)
    if not path.exists():
        network = networks.build(row.network, classes, row.contract, dict(row.options))
        if name == CONSTANT:
            _answer_alike(network)
        else:
            _train(network, *_split(dataset, "train"), row.epochs)
        save_file(network.state_dict(), path)
    image, label = _split(dataset, "test")
    with torch.no_grad():
        chosen = torch.cat([_load(row, classes, path)(part).argmax(1) for part in image.split(100)])
    return path, float((chosen == label).float().mean())


def _answer_alike(network: nn.Module) -> None:
    last = [module for module in network.modules() if isinstance(module, nn.Linear)][-1]
    nn.init.zeros_(last.weight)


def _train(network: nn.Module, image: Tensor, label: Tensor, epochs: int) -> None:
    optimizer = torch.optim.AdamW(network.parameters(), 2e-3, weight_decay=0.01)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 4e-3, epochs * (len(image) // 64))
    network.train()
    for _ in range(epochs):
        for rows in torch.randperm(len(image))[: len(image) // 64 * 64].split(64):
            optimizer.zero_grad()
            F.cross_entropy(network(image[rows]), label[rows]).backward()
            optimizer.step()
            schedule.step()


def _load(row: Row, classes: int, weights: Path) -> nn.Module:
    network = networks.build(row.network, classes, row.contract, dict(row.options))
    network.load_state_dict(load_file(weights))
    return network.eval().requires_grad_(False)


def _split(dataset: Path, split: str) -> tuple[Tensor, Tensor]:
    tensors = load_file(dataset)
    return (tensors[f"{split}.image"].float() / 255 - 0.3) / 0.35, tensors[f"{split}.label"]


def table(found: list[dict[str, Any]]) -> str:
    """The results as a Markdown table."""
    lines = [
        "| teacher | teacher's accuracy | source | initial weights | steps | seed | agreement | accuracy | CPU seconds |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    for each in sorted(found, key=lambda one: (list(ROWS).index(one["row"]), one["asked"], one["steps"], one["seed"])):
        source = f"{each['source']} (chosen)" if each["asked"] == "auto" else each["asked"]
        cells = f"{each['agreement']:.1%} | {each['accuracy']:.1%}" if "agreement" in each else f"{each['error']} | –"
        lines.append(
            f"| {each['row']} | {each['teacher_accuracy']:.1%} | {source} | {each['initial_weights']} | {each['steps']} | "
            f"{each['seed']} | {cells} | {each['cpu_seconds']:.0f} |"
        )
    return "\n".join(lines)


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.datafree.robustness", description=__doc__.splitlines()[0]
    )
    parser.add_argument("--rows", nargs="+", choices=list(ROWS), default=list(ROWS))
    parser.add_argument("--sources", nargs="+", default=["auto"], help="`auto`, or sources with or without parameters")
    parser.add_argument("--steps", type=int, default=1200, help="steps of the student")
    parser.add_argument(
        "--seeds", nargs="+", type=int, default=[0], help="seeds of the students; a teacher has one seed"
    )
    parser.add_argument("--list", action="store_true", help="print the stored results and run nothing")
    parser.add_argument("--results", type=Path, default=RESULTS, help="folder for teachers and results")
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
