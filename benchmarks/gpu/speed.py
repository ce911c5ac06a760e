"""Part 2: images a second of the engine's step beside a plain AMP loop of the same networks, and a profile of it."""

import os
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch.profiler import ProfilerActivity, profile

from benchmarks.gpu import peer
from benchmarks.gpu.images import decoded, photographs
from benchmarks.gpu.results import Runs
from benchmarks.loop.engine_loop import job_of, stage_of, write_inputs
from benchmarks.loop.setting import Setting, setting
from worker.distillation.data.resizing import fill
from worker.distillation.job import Job
from worker.distillation.precision import use_fast_kernels

PART = "speed"
VARIANTS: dict[str, tuple[dict[str, Any], dict[str, Any], dict[str, Any]]] = {
    "engine": ({}, {}, {}),
    "engine, cached answers": ({"views": 2}, {"teacher_answers": "cached"}, {}),
    "engine, folded teacher": ({}, {"fold_teacher": True}, {}),
    "engine, folded teacher as a graph": ({}, {"fold_teacher": True}, {"cuda_graphs": True}),
}
"""What is added to the source, to the training and to the job file."""


@dataclass(frozen=True)
class Pair:
    """Two networks, the batch size, and the side of the images."""

    teacher: str
    student: str
    batch_size: int
    side: int
    images: int


PAIRS = (
    Pair("resnet56_cifar", "resnet20_cifar", 128, 32, 8192),
    Pair("torchvision/resnet50", "torchvision/mobilenet_v2", 128, 224, 1024),
    Pair("resnet32x4_cifar", "resnet8x4_cifar", 128, 32, 8192),
    Pair("resnet56_cifar", "resnet20_cifar", 64, 32, 8192),
)
TINY = (
    Pair("resnet14_cifar", "resnet8_cifar", 8, 32, 32),
    Pair("torchvision/resnet18", "torchvision/mobilenet_v3_small", 2, 224, 8),
)
TURNS, STEPS, WARM_UP = 5, 60, 25


def run(runs: Runs, carry: Path) -> None:
    """Every pair beside the loop, then a profile of the first two."""
    use_fast_kernels(torch.device(runs.device), tf32=True)
    pairs = TINY if runs.tiny else PAIRS
    for pair in pairs:
        name = f"{pair.teacher} to {pair.student}, batch {pair.batch_size}"
        folder = runs.folder / PART / name.replace("/", "_").replace(" ", "_")
        runs.once(
            PART, name, 60 if pair.side == 32 else 120, lambda pair=pair, folder=folder: _measured(pair, folder, runs)
        )
    for pair in pairs[:2]:
        name = f"profile of {pair.teacher} to {pair.student}"
        folder = runs.folder / PART / name.replace("/", "_").replace(" ", "_")
        runs.once(PART, name, 40, lambda pair=pair, folder=folder: _profiled(pair, folder, runs))


def _given(pair: Pair) -> tuple[Setting, list[bytes]]:
    """The setting, and for large images their files."""
    made = setting(pair.teacher, pair.student, pair.images, pair.batch_size)
    if pair.side == 32:
        return made, []
    files = photographs(pair.images, 300, 400)
    image = torch.cat([fill(decoded(each)[None], pair.side, pair.side) for each in files])
    return Setting(pair.teacher, pair.student, image, made.label, pair.batch_size, side=pair.side), files


def _engine(given: Setting, folder: Path, name: str, device: str) -> Callable[[], None]:
    source, training, values = VARIANTS[name]
    job = job_of(given, folder, {"augmentation": "standard", **source}, training, device)
    run = stage_of(Job({**job.values, **values}, folder))
    return run.advance


def _measured(pair: Pair, folder: Path, runs: Runs) -> dict[str, Any]:
    """Images a second of each loop, as medians over turns, and how many times those of the loop with resident images."""
    given, files = _given(pair)
    write_inputs(given, folder)
    loops = {"plain AMP loop": peer.amp_step(*given.networks(), peer.resident(given, runs.device), runs.device)}
    if files:
        workers = 0 if runs.tiny else min(15, (os.cpu_count() or 1) - 1)
        batches = peer.loaded(given, files, runs.device, workers)
        loops["plain AMP loop, JPEG by a data loader"] = peer.amp_step(*given.networks(), batches, runs.device)
    loops |= {name: _engine(given, folder, name, runs.device) for name in VARIANTS}
    steps = 1 if runs.tiny else STEPS if pair.side == 32 else STEPS // 3
    rates = _rates(loops, pair.batch_size, 1 if runs.tiny else TURNS, steps, 1 if runs.tiny else WARM_UP, runs.device)
    reference = rates["plain AMP loop"]
    return {
        "images_a_second": rates, "times_the_plain_loop": {name: round(rate / reference, 3) for name, rate in rates.items()},
        "turns": TURNS, "steps": steps,
        "memory_gb": round(torch.cuda.max_memory_allocated() / 1e9, 2) if runs.device == "cuda" else None,
    }  # fmt: skip


def _rates(
    loops: dict[str, Callable[[], None]], batch_size: int, turns: int, steps: int, warm_up: int, device: str
) -> dict[str, float]:
    spent: dict[str, list[float]] = {name: [] for name in loops}
    for step in loops.values():
        for _ in range(warm_up):
            step()
    for _ in range(turns):
        for name, step in loops.items():
            _wait(device)
            began = time.perf_counter()
            for _ in range(steps):
                step()
            _wait(device)
            spent[name].append(time.perf_counter() - began)
    return {name: round(batch_size * steps / statistics.median(each), 1) for name, each in spent.items()}


def _wait(device: str) -> None:
    if device == "cuda":
        torch.cuda.synchronize()


def _profiled(pair: Pair, folder: Path, runs: Runs) -> dict[str, Any]:
    """The operations of some steps that take the most time on the device and on the CPU."""
    given, _ = _given(pair)
    write_inputs(given, folder)
    step = _engine(given, folder, "engine", runs.device)
    for _ in range(1 if runs.tiny else WARM_UP):
        step()
    activities = [ProfilerActivity.CPU] + ([ProfilerActivity.CUDA] if runs.device == "cuda" else [])
    count = 1 if runs.tiny else 10
    with profile(activities=activities) as found:
        for _ in range(count):
            step()
        _wait(runs.device)
    rows = [
        {
            "name": each.key[:80], "calls": each.count, "cpu_us": round(each.self_cpu_time_total),
            "device_us": round(each.self_device_time_total),
        }
        for each in found.key_averages()
    ]  # fmt: skip
    most = {kind: sorted(rows, key=lambda row, kind=kind: -row[kind])[:20] for kind in ("device_us", "cpu_us")}
    waits = [row for row in rows if "Synchronize" in row["name"] or "Memcpy" in row["name"]]
    totals = {kind: sum(row[kind] for row in rows) for kind in ("device_us", "cpu_us")}
    return {"steps": count, "totals": totals, "waits": waits, "profile": most}
