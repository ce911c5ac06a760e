"""The cost of MNIST without data: accuracy against CPU seconds, for our default and for DAFL as published.

    python -m benchmarks.datafree.cost --data PATH/mnist.npz [--seeds 0 ...] [--seconds 150]

Three processes of one thread each distil the same LeNet-5 into its half: the engine's default from slices of the teacher, the
same from random weights, both to their end, and a plain transcription of the published algorithm at its own settings
(`benchmarks.datafree.published_dafl`) for `--seconds`. They run in turns of five seconds, each while the others are stopped,
so that all run under the same conditions and do not disturb each other. Seconds are CPU seconds of a process, without
imports, reading the test images, and measuring the student. The measurements use the real test images and choose nothing;
the first time above an accuracy is for orientation only. Results are stored in `results/datafree_cost.jsonl` and not
measured again; `--list` only prints them.
"""

import argparse
import json
import multiprocessing
import os
import signal
import statistics
import sys
import time
from collections.abc import Iterable, Mapping, Sequence
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from torch import nn

from benchmarks.compare.results import Store
from benchmarks.datafree import __main__ as datafree
from benchmarks.datafree import published_dafl
from benchmarks.mnist import digits
from worker.distillation import networks
from worker.distillation.contract import read_contract
from worker.distillation.data.images import Images
from worker.distillation.introspection.modes import modes_kept
from worker.distillation.job import Job
from worker.distillation.process.event_pipe import Channel, die_with_parent
from worker.distillation.run import Run
from worker.distillation.tasks import classification
from worker.distillation.trainer.stage_run import StageRun

TEACHER = "adam"
OURS = {
    "ours, slices": datafree.Row("teacher", training={"average_weights": None}),
    "ours, random": datafree.Row("random", training={"average_weights": None}),
}
PUBLISHED = "as published"
TURN = 5.0
LEVELS, MARKS = (0.95, 0.97, 0.98), (20.0, 60.0, 150.0)
LOOKS = sorted({*MARKS, *(1.15**n for n in range(80))})
"""Seconds after which a student is measured, each once."""


class Curve:
    """A student's accuracy over this process's CPU seconds, without the measurements themselves."""

    def __init__(self, test: Images):
        self.points: list[tuple[float, int, float]] = []
        """(seconds, step, accuracy)"""
        self._test, self._due = test, list(LOOKS)
        self._not_counted = time.process_time()

    def seconds(self) -> float:
        return time.process_time() - self._not_counted

    def look(self, network: nn.Module, step: int, force: bool = False) -> None:
        """Measure the network if a measurement is due, or if `force`."""
        now = self.seconds()
        if not force and now < self._due[0]:
            return
        while self._due[0] <= now:
            self._due.pop(0)
        with modes_kept(network):
            accuracy = classification.evaluate(network, self._test, digits.BATCH)["accuracy"]
        self.points.append((round(now, 2), step, round(accuracy, 4)))
        self._not_counted += self.seconds() - now


class WatchedRun(Run):
    """The engine's run, with a measurement of its only student after a step."""

    def __init__(self, job: Job, channel: Channel, curve: Curve):
        super().__init__(job, channel)
        self._curve = curve

    def after_step(self, run: StageRun) -> None:
        (member,) = run.members.values()
        self._curve.look(member.network, run.number, run.finished)
        super().after_step(run)


def main() -> int:
    arguments = _arguments()
    folder = arguments.results / "datafree_cost"
    folder.mkdir(parents=True, exist_ok=True)
    store = Store(arguments.results / "datafree_cost.jsonl")
    for seed in arguments.seeds:
        if str(seed) not in store.rows and not arguments.list:
            dataset = digits.canonical(arguments.data, arguments.results)
            weights, accuracy = digits.teacher(dataset, arguments.results, **datafree.TEACHERS[TEACHER])
            sides = side_by_side(seed, arguments.seconds, dataset.resolve(), weights.resolve(), folder)
            facts = {"teacher": accuracy, "torch": torch.__version__, "seconds": arguments.seconds}
            store.add({"key": str(seed), **facts, "sides": sides})
    print(table(store.rows))
    return 0


def side_by_side(seed: int, seconds: float, dataset: Path, weights: Path, folder: Path) -> dict[str, Any]:
    """Run all sides of a seed in turns; returns the result of each."""
    files = {side: folder / f"{side}, {seed}.json" for side in (*OURS, PUBLISHED)}
    context = multiprocessing.get_context("spawn")
    of_all = (seed, seconds, dataset, weights)
    take_turns([context.Process(target=measure, name=side, args=(side, *of_all, files[side])) for side in files])
    return {side: json.loads(path.read_text()) for side, path in files.items()}


def take_turns(processes: Sequence[BaseProcess], seconds: float = TURN) -> None:
    """Run the processes in turns, each for `seconds` while the others are stopped, until all have ended.

    Raises:
        RuntimeError: one failed.
    """
    try:
        while any(process.exitcode is None for process in processes):
            for process in processes:
                if process.pid is None:
                    process.start()
                elif process.exitcode is None:
                    os.kill(process.pid, signal.SIGCONT)
                process.join(seconds)
                if process.exitcode is None:
                    os.kill(process.pid, signal.SIGSTOP)
                elif process.exitcode:
                    raise RuntimeError(f"{process.name} ended with {process.exitcode}")
    finally:
        for process in processes:
            if process.pid is not None:
                process.kill()


def measure(side: str, seed: int, seconds: float, dataset: Path, weights: Path, path: Path) -> None:
    """The process of one side; writes its curve, its steps and its seconds."""
    die_with_parent()
    torch.set_num_threads(1)
    torch.optim.Adam(nn.Linear(1, 1).parameters())  # the first measurement imports much
    curve = Curve(Images.load(dataset, "test", read_contract(digits.INPUT), "cpu"))
    found = (
        run_published(seed, seconds, weights, curve)
        if side == PUBLISHED
        else run_ours(OURS[side], seed, dataset, weights, curve, path.with_suffix(""))
    )
    path.write_text(json.dumps({**found, "curve": curve.points}))


def run_ours(row: datafree.Row, seed: int, dataset: Path, weights: Path, curve: Curve, folder: Path) -> dict[str, Any]:
    """One whole job of the engine in this process; the curve ends with the last step."""
    values = datafree.job(row, TEACHER, seed, dataset, weights)
    spec = {key: value for key, value in values["spec"].items() if key != "evaluation"}
    with Path(os.devnull).open("w") as nowhere:
        run = WatchedRun(Job({**values, "spec": spec, "evaluation": None}, folder), Channel(nowhere), curve)
        run.execute()
    seconds, steps, _ = curve.points[-1]
    return {"steps": steps, "restarts": run.state.restarts, "end": seconds}


def run_published(seed: int, seconds: float, weights: Path, curve: Curve) -> dict[str, Any]:
    """The published algorithm for `seconds`; `end` is projected from the median iteration."""
    torch.manual_seed(seed)
    contract = read_contract(digits.INPUT)
    teacher, student = (networks.build(name, digits.CLASSES, contract, {}) for name in ("lenet5", "lenet5_half"))
    teacher.load_state_dict(load_file(weights))
    each: list[float] = []
    training = published_dafl.iterations(teacher, student)
    while (before := curve.seconds()) < seconds:
        next(training)
        each.append(curve.seconds() - before)
        curve.look(student, len(each))
    curve.look(student, len(each), force=True)
    iteration = statistics.median(each)
    return {"steps": len(each), "iteration": iteration, "end": iteration * published_dafl.ITERATIONS}


def table(rows: Mapping[str, Mapping[str, Any]]) -> str:
    """The results as a Markdown table, one line for each seed and side."""
    firsts = [f"first {level:.0%}" for level in LEVELS]
    marks = [f"at {mark:.0f} s" for mark in MARKS]
    head = ("DAFL", "seed", *firsts, *marks, "last measurement", "end")
    lines = [f"| {' | '.join(head)} |", "|---" * len(head) + "|"]
    for seed, row in rows.items():
        lines += [f"| {' | '.join(_cells(side, seed, found))} |" for side, found in row["sides"].items()]
    return "\n".join(lines)


def _cells(side: str, seed: str, found: Mapping[str, Any]) -> Iterable[str]:
    curve, end = found["curve"], found["end"]
    firsts = (next((f"{at:.0f} s" for at, _, right in curve if right >= level), "–") for level in LEVELS)
    marks = (next((f"{right:.2%}" for at, _, right in curve if at >= mark), "–") for mark in MARKS)
    last = f"{curve[-1][2]:.2%} ({curve[-1][0]:.0f} s, {found['steps']} steps)"
    ends = (
        f"projected: {end / 3600:.1f} h ({found['iteration']:.2f} s per step)"
        if "iteration" in found
        else f"{end:.0f} s"
    )
    return side, seed, *firsts, *marks, last, ends


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.datafree.cost", description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, required=True, help="mnist.npz")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0])
    parser.add_argument("--seconds", type=float, default=150.0, help="CPU seconds for the published settings")
    parser.add_argument("--list", action="store_true", help="print the stored results and run nothing")
    parser.add_argument("--results", type=Path, default=digits.RESULTS, help="folder for the teacher and the results")
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
