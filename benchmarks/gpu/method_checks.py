"""A few steps of every objective and every synthesiser on a device, with the places where a step waits for a GPU."""

import warnings
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import torch

from benchmarks.loop.engine_loop import job_of, stage_of
from benchmarks.loop.setting import Setting
from worker.distillation import registry
from worker.distillation.errors import EngineError
from worker.distillation.job import Job
from worker.distillation.trainer.stage_run import StageRun

OTHER_TASKS = (
    "attentive_imitation",
    "attentive_hint",
    "binary_cross_entropy",
    "target_error",
    "triplet",
    "darkrank",
    "mutual",
)
"""Objectives that need another task or procedure than the stage that is stepped here."""
SOURCE_SIZES = {
    "generator_batch": 32, "generator_width": 8, "pool_images": 64, "iterations": 3, "initial_rounds": 1, "rounds": 1,
    "first_batches": 1, "family_images": 16,
}  # fmt: skip
"""Parameters of sources, where they have them, for a few quick steps."""


def methods(given: Setting, folder: Path, device: str) -> Iterator[tuple[str, float, Callable[[], dict[str, Any]]]]:
    """The name of each check, about how many seconds it takes, and the check."""
    for name in registry.names("objectives"):
        if name not in OTHER_TASKS:
            yield f"objective {name}", 10, partial(_objective, given, folder, device, name)
    for name in registry.names("sources"):
        found = registry.find("sources", name)
        if found.synthesises and not found.needs.files:
            yield f"source {name}", 20, partial(_source, given, folder, device, name)


def stepped(run: StageRun, steps: int) -> dict[str, Any]:
    """Step a stage until its student has taken some steps; says where the last steps wait for the GPU, by file and line, how often,
    and the losses."""
    while run.number < min(3, steps):
        run.advance()
    places: dict[str, int] = {}
    if run.context.device.type == "cuda":
        torch.cuda.set_sync_debug_mode("warn")
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        for _ in range(steps - 3):
            run.advance()
    if run.context.device.type == "cuda":
        torch.cuda.set_sync_debug_mode("default")
    for each in caught:
        if "synchroniz" in str(each.message).lower():
            place = f"{Path(each.filename).name}:{each.lineno}"
            places[place] = places.get(place, 0) + 1
    metrics = {name: value for name, value in run.metrics().items() if name.endswith("loss")}
    return {"steps": steps, "waits": places, "metrics": metrics}


def _objective(given: Setting, folder: Path, device: str, name: str) -> dict[str, Any]:
    """A few steps of one objective with its defaults; a refusal by the engine is a result."""
    job = job_of(given, folder, {"augmentation": "standard"}, {}, device)
    spec = {**job.spec, "objectives": [{"name": name, "weight": 1.0}]}
    try:
        return stepped(stage_of(Job({**job.values, "spec": spec}, folder)), 3 if device == "cpu" else 8)
    except EngineError as error:
        return {"refused": str(error)}


def _source(given: Setting, folder: Path, device: str, name: str) -> dict[str, Any]:
    """A few generator steps and steps of one source."""
    fields = registry.find("sources", name).Parameters.__dataclass_fields__
    sizes = {key: value for key, value in SOURCE_SIZES.items() if key in fields}
    if "initial_generator_steps" in fields:
        sizes["initial_generator_steps"] = 2
    job = job_of(given, folder, {}, {"batch_size": 16}, device)
    spec = {
        **job.spec, "source": {"name": name, **sizes}, "dataset": None, "objectives": [{"name": "kd", "weight": 1.0}],
    }  # fmt: skip
    needs_images = registry.find("sources", name).needs.dataset
    values = {**job.values, "spec": spec, "dataset": job.values["dataset"] if needs_images else None}
    return stepped(stage_of(Job(values, folder)), 6 if device == "cpu" else 12)
