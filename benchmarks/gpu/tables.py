"""Part 4: methods side by side on CIFAR-10 (JPEG), as in the tables on CIFAR-100: ResNet-56 to ResNet-20, ResNet-32x4 to ResNet-8x4."""

import io
import json
import shutil
import time
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

import torch

from benchmarks.compare.protocols import CIFAR10, Files, Protocol
from benchmarks.compare.rows import CE, KD, Row, named, rising
from benchmarks.compare.runs import order
from benchmarks.gpu.images import PACK, write_cifar
from benchmarks.gpu.results import Runs
from worker.distillation.job import Job
from worker.distillation.process.event_pipe import Channel
from worker.distillation.run import Run

PART = "tables"
PAIRS = (("resnet56_cifar", "resnet20_cifar"), ("resnet32x4_cifar", "resnet8x4_cifar"))
TINY = (("resnet8x4_cifar", "resnet8_cifar"),)
EPOCHS, TEACHER_EPOCHS = 12, 15
SECONDS = 60.0
"""About what a row takes; measured by nobody yet."""
TRAINING = {"batch_size": 128, "optimizer": "sgd", "learning_rate": 0.1, "weight_decay": 5e-4, "schedule": "cosine"}


@dataclass(frozen=True)
class Method:
    """A row of the table, by its objectives."""

    name: str
    objectives: tuple[dict[str, Any], ...]
    teachers: int = 1
    training: dict[str, Any] = field(default_factory=dict)


METHODS = (
    Method("plain", (CE,), teachers=0),
    Method("kd", KD),
    Method("dkd", (CE, named("dkd", rising(1.0)))),
    Method("crd", (CE, named("crd", 0.8))),
    Method("review", (CE, named("review", rising(1.0)))),
    Method("at", (CE, named("attention_transfer", 1000.0))),
    Method("nst", (CE, named("nst", 50.0))),
    Method("rkd", (CE, named("relational"))),
    Method("dist", (CE, named("dist", 2.0))),
    Method("hint", (CE, named("hint", 100.0))),
)
"""In order of worth; weights as in benchmarks/compare/rows.py."""


def run(runs: Runs, carry: Path) -> None:
    """Each pair's teacher, then the methods, as far as the time goes."""
    train, test = write_cifar(carry / PACK, runs.folder / "cifar", 256 if runs.tiny else None)
    for teacher, student in TINY if runs.tiny else PAIRS:
        protocol = replace(
            CIFAR10, teacher=teacher, student=student, device=runs.device, training=_length(runs, EPOCHS)
        )
        folder = runs.folder / PART / teacher
        weights = folder / "teacher.safetensors"
        teaching = replace(protocol, student=teacher, training=_length(runs, TEACHER_EPOCHS))
        alone = Method("teacher", (CE,), teachers=0)
        trained = runs.once(
            PART,
            f"{teacher}: teacher",
            2 * SECONDS,
            partial(_trained, runs, teaching, Files({0: train}, train, test), alone, folder / "teaching", weights),
        )
        if trained is None or not weights.exists():
            continue
        files = Files({0: train}, train, test, (weights,))
        for method in METHODS:
            runs.once(
                PART,
                f"{teacher} to {student}: {method.name}",
                SECONDS,
                partial(_trained, runs, protocol, files, method, folder / method.name, None),
            )


def _length(runs: Runs, epochs: int) -> dict[str, Any]:
    return TRAINING | ({"steps": 3} if runs.tiny else {"epochs": epochs})


def _trained(
    runs: Runs, protocol: Protocol, files: Files, method: Method, folder: Path, keep: Path | None
) -> dict[str, Any]:
    """Train one network in this process, bounded by the time that is left; its weights are copied to `keep`."""
    row = Row(method.name, method.name, "", "", method.objectives, teachers=method.teachers, training=method.training)
    job = order(row, 0, protocol, files).job | {"threads": None}
    if not runs.tiny:
        job["spec"]["training"]["time_limit_minutes"] = max(0.2, (runs.clock.left() - 15) / 60)
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    began = _now(runs.device)
    Run(Job(job, folder), Channel(io.StringIO())).execute()
    report = json.loads((folder / "output" / "report.json").read_text())
    if keep is not None:
        shutil.copy(folder / "output" / "student.safetensors", keep)
    student = report["evaluation"]["student"]
    return {
        "accuracy": student["accuracy"], "agreement": student.get("agreement"), "steps": report["stages"][-1]["steps"],
        "seconds": round(_now(runs.device) - began, 1), "stopped_early": report.get("stopped_early"),
        "device": report["environment"]["device_name"],
    }  # fmt: skip


def _now(device: str) -> float:
    if device == "cuda":
        torch.cuda.synchronize()
    return time.monotonic()
