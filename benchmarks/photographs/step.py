"""A whole training step on photographs: the engine's beside a loop over torchvision's ImageFolder."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from safetensors.torch import save_file
from torch import Tensor
from torch.utils.data import DataLoader

from benchmarks.compare.runs import with_defaults
from benchmarks.loop.engine_loop import stage_of
from benchmarks.loop.turns import measured
from benchmarks.photographs.costs import BATCH, CONTRACT, MEAN, STD, image_folder
from worker.distillation import networks
from worker.distillation.job import Job

Step = Callable[[], None]
TEACHER, STUDENT = "torchvision/resnet18", "torchvision/mobilenet_v3_small"
CLASSES = 10
SGD = {"learning_rate": 0.05, "momentum": 0.9, "weight_decay": 5e-4}
LOOPS: dict[str, dict[str, Any]] = {
    "engine": {},
    "engine, folded teacher": {"fold_teacher": True},
    "engine, folded teacher in bf16": {"fold_teacher": True, "teacher_precision": "bf16"},
}
"""The engine's loops, by what their `training` sets."""


def compare(dataset: Path, files: Path, folder: Path, turns: int, steps: int) -> dict[str, Any]:
    """Milliseconds a step of each loop, on the clock (`wall`) and of all threads' CPU time, and how many times as many steps it
    takes as ImageFolder's in the same time: medians over the turns, in which every loop takes `steps` steps."""
    folder.mkdir(parents=True, exist_ok=True)
    teacher = networks.build(TEACHER, CLASSES, CONTRACT, {})
    save_file(teacher.state_dict(), folder / "teacher.safetensors")
    made = {"ImageFolder": usual(files)} | {name: engine(dataset, folder, each) for name, each in LOOPS.items()}
    found: dict[str, Any] = measured(made, turns, steps)
    first = found["ImageFolder"]
    return {
        name: each | {f"{kind}_ratio": round(first[kind] / each[kind], 2) for kind in ("wall", "cpu")}
        for name, each in found.items()
    }


def engine(dataset: Path, folder: Path, training: dict[str, Any]) -> Step:
    """The engine's step: decoding, random resized crop and flip, both networks, and the update."""
    given = {"channels": 3, "height": 224, "width": 224, "mean": list(MEAN), "std": list(STD)}
    spec = with_defaults(
        {
            "task": "classification", "teacher": "tch_benchmark", "dataset": "dts_benchmark",
            "student": {"network": STUDENT, "options": {}, "initial_weights": "random"},
            "source": {"name": "dataset", "augmentation": "resized_crop"}, "objectives": [{"name": "kd", "temperature": 4.0}],
            "procedure": {"name": "direct"}, "transforms": [], "evaluation": None, "exports": ["safetensors"],
            "training": {
                "steps": 1_000_000, "batch_size": BATCH, "optimizer": "sgd", "nesterov": False, "schedule": "constant", **SGD, **training,
            },
        }
    )  # fmt: skip
    teacher = {
        "network": TEACHER, "options": {}, "classes": CLASSES, "class_names": [], "input": given,
        "weights": str((folder / "teacher.safetensors").absolute()),
    }  # fmt: skip
    described = {"kind": "distill", "spec": spec, "teacher": teacher, "dataset": str(dataset.absolute())}
    run = stage_of(Job({**described, "evaluation": None, "device": "cpu"}, folder))
    return run.advance


def usual(files: Path) -> Step:
    """A loop as it is usually written: ImageFolder, torchvision's transforms, a data loader in this process, and KD."""
    teacher, student = (networks.build(name, CLASSES, CONTRACT, {}) for name in (TEACHER, STUDENT))
    teacher.eval().requires_grad_(False)
    optimizer = torch.optim.SGD(
        student.parameters(), SGD["learning_rate"], SGD["momentum"], weight_decay=SGD["weight_decay"]
    )
    batches = _endless(files)

    def step() -> None:
        x = next(batches)
        with torch.no_grad():
            target = teacher(x)
        student.train()
        log_p, q = F.log_softmax(student(x) / 4.0, dim=1), F.softmax(target / 4.0, dim=1)
        loss = F.kl_div(log_p, q, reduction="batchmean") * 16.0
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()

    return step


def _endless(files: Path) -> Iterator[Tensor]:
    loader = DataLoader(image_folder(files), BATCH, shuffle=True, drop_last=True)
    while True:
        for image, _ in loader:
            yield image
