"""Part 3: CIFAR-10 (JPEG) without data, ResNet-34 to ResNet-18: the teacher first, then DAFL and CPNet as published and the service's choice."""

import json
import shutil
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from benchmarks.bare_engine import Ran, job_file, method_asked, run_engine
from benchmarks.compare.protocols import CIFAR10, Protocol
from benchmarks.compare.rows import CE
from benchmarks.compare.runs import spec_without_length
from benchmarks.gpu.images import PACK, write_cifar
from benchmarks.gpu.results import Runs
from worker.distillation import registry
from worker.distillation.training import Training

PART = "datafree"
BIG = replace(CIFAR10, teacher="resnet34_cifar", student="resnet18_cifar")
SMALL = replace(CIFAR10, teacher="resnet8_cifar", student="resnet8_cifar")
TEACHER_MINUTES, STUDENT_MINUTES = 3.5, 2.4
SOURCES = ('dafl preset="paper_cifar10"', 'cpnet preset="paper"', "fast_meta", "cmi", "nayer")
TINY_SOURCES = (
    'dafl preset="paper_cifar10" generator_batch=16 generator_width=4',
    "fast_meta generator_batch=16 generator_width=4 pool_images=64 iterations=2 initial_rounds=1",
)
TEACHING = {"batch_size": 256, "optimizer": "sgd", "learning_rate": 0.1, "weight_decay": 5e-4, "warm_up_steps": 200}
PILOT_MINUTES, BESIDE_SECONDS = 0.25, 25.0
TINY_STEPS = 3


def run(runs: Runs, carry: Path) -> None:
    """The teacher, and as many students as the time allows."""
    protocol = SMALL if runs.tiny else BIG
    files = write_cifar(carry / PACK, runs.folder / "cifar", 256 if runs.tiny else None)
    folder = runs.folder / PART
    weights = folder / "teacher.safetensors"
    taught = runs.once(PART, "teacher", 60 * TEACHER_MINUTES, lambda: _teacher(runs, protocol, files, folder))
    if taught is None or not weights.exists():
        return
    for source in TINY_SOURCES if runs.tiny else SOURCES:
        runs.once(
            PART,
            source,
            60 * STUDENT_MINUTES,
            lambda source=source: (
                _student(runs, protocol, files, weights, source) | {"teacher_accuracy": taught["accuracy"]}
            ),
        )


def _teacher(runs: Runs, protocol: Protocol, files: tuple[Path, Path], folder: Path) -> dict[str, Any]:
    spec = spec_without_length(protocol.teacher, {"name": "dataset", "augmentation": "standard"}, [CE], TEACHING)
    spec["student"] |= {"classes": protocol.classes, "input": protocol.input}
    spec |= {"teacher": None, "dataset": "dts_benchmark"}
    job = job_file(spec, None, files[1].resolve(), files[0].resolve(), device=runs.device, threads=None)
    found = fitted(runs, folder / "teaching", job, TEACHER_MINUTES)
    shutil.copy(folder / "teaching" / "run" / "output" / "student.safetensors", folder / "teacher.safetensors")
    return found


def _student(runs: Runs, protocol: Protocol, files: tuple[Path, Path], weights: Path, source: str) -> dict[str, Any]:
    asked = method_asked(source)
    method = registry.find("sources", asked["name"])
    training = {**method.training_defaults, "average_weights": 0.999}
    spec = spec_without_length(protocol.student, asked, list(method.objective_defaults), training)
    given = {
        "network": protocol.teacher, "options": {}, "classes": protocol.classes, "input": protocol.input,
        "weights": str(weights.resolve()),
    }  # fmt: skip
    job = job_file(spec, given, files[1].resolve(), None, device=runs.device, threads=None)
    return fitted(runs, weights.parent / asked["name"], job, STUDENT_MINUTES)


def fitted(runs: Runs, place: Path, job: dict[str, Any], minutes: float) -> dict[str, Any]:
    """Run a job of as many steps as fit into the minutes, which a short pilot run finds out, so that its schedule is complete."""
    steps = TINY_STEPS
    if not runs.tiny:
        pilot = _report(place / "pilot", _engine(place / "pilot", job, 10_000_000, PILOT_MINUTES))
        left = min(60 * minutes, runs.clock.left()) - 60 * PILOT_MINUTES - 2 * BESIDE_SECONDS
        steps = max(1, int(pilot["stages"][-1]["steps"] * max(left, 5.0) / (60 * PILOT_MINUTES)))
    ran = _engine(place / "run", job, steps, None)
    report = _report(place / "run", ran)
    student = report["evaluation"]["student"]
    return {
        "accuracy": student["accuracy"], "agreement": student.get("agreement"), "steps": report["stages"][-1]["steps"],
        "seconds": ran.seconds, "device": report["environment"]["device_name"], "versions": report["environment"]["versions"],
    }  # fmt: skip


def _engine(place: Path, job: dict[str, Any], steps: int, minutes: float | None) -> Ran:
    shutil.rmtree(place, ignore_errors=True)
    place.mkdir(parents=True)
    training = asdict(replace(Training.from_spec(job["spec"]["training"]), steps=steps, time_limit_minutes=minutes))
    (place / "job.json").write_text(json.dumps(job | {"spec": job["spec"] | {"training": training}}, indent=1))
    return run_engine(place / "job.json")


def _report(place: Path, ran: Ran) -> dict[str, Any]:
    if ran.last["event"] != "done":
        raise RuntimeError(f"{place}: {json.dumps(ran.last)[:1500]}")
    report: dict[str, Any] = json.loads((place / "output" / "report.json").read_text())
    return report
