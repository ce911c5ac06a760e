"""What MNIST without data costs: accuracy against seconds of a processor, of our default and of DAFL as published.

    python -m benchmarks.datafree.cost --data PATH/mnist.npz [--seeds 0 ...] [--seconds 150]

Three processes of one thread each distil the same LeNet-5 into its half: the engine's default from slices of the teacher, the
same from random weights, both to their end, and a plain transcription of the published algorithm at its own settings
(`benchmarks.datafree.published_dafl`) for `--seconds`. They run in turns of five seconds, each while the others are stopped, so that
all meet the same machine and none the others. Seconds are those that the processor spent on a process, without imports, the
reading of the test images, and every look at the student. The looks see the real test images, and choose nothing; the first
look above an accuracy is told for orientation only. Seeds that were measured stand in `results/datafree_cost.jsonl` and are
not run again; `--list` only prints them.
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

from benchmarks.compare.figures import Store
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
"""Seconds at which a student is looked at, each once they have passed."""


class Curve:
    """How right a student is after so many seconds of this process, the looks themselves not counted."""

    def __init__(self, test: Images):
        self.points: list[tuple[float, int, float]] = []
        """(seconds, step, accuracy)"""
        self._test, self._due = test, list(LOOKS)
        self._not_counted = time.process_time()

    def seconds(self) -> float:
        return time.process_time() - self._not_counted

    def look(self, network: nn.Module, step: int, surely: bool = False) -> None:
        """Measure the network if that is due, or `surely`."""
        now = self.seconds()
        if not surely and now < self._due[0]:
            return
        while self._due[0] <= now:
            self._due.pop(0)
        with modes_kept(network):
            accuracy = classification.evaluate(network, self._test, digits.BATCH)["accuracy"]
        self.points.append((round(now, 2), step, round(accuracy, 4)))
        self._not_counted += self.seconds() - now


class WatchedRun(Run):
    """The engine's run as it is, with a look at its only student after a step."""

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
    """Run all sides of a seed in turns; gives what each has found."""
    files = {side: folder / f"{side}, {seed}.json" for side in (*OURS, PUBLISHED)}
    context = multiprocessing.get_context("spawn")
    of_all = (seed, seconds, dataset, weights)
    take_turns([context.Process(target=measure, name=side, args=(side, *of_all, files[side])) for side in files])
    return {side: json.loads(path.read_text()) for side, path in files.items()}


def take_turns(processes: Sequence[BaseProcess], seconds: float = TURN) -> None:
    """Let each process run for so long while the others are stopped, until all have ended.

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
    """Be the process of one side; writes its curve, its steps and its seconds."""
    die_with_parent()
    torch.set_num_threads(1)
    torch.optim.Adam(nn.Linear(1, 1).parameters())  # the first one imports much
    curve = Curve(Images.load(dataset, "test", read_contract(digits.INPUT), "cpu"))
    found = (
        run_published(seed, seconds, weights, curve)
        if side == PUBLISHED
        else run_ours(OURS[side], seed, dataset, weights, curve, path.with_suffix(""))
    )
    path.write_text(json.dumps({**found, "curve": curve.points}))


def run_ours(row: datafree.Row, seed: int, dataset: Path, weights: Path, curve: Curve, folder: Path) -> dict[str, Any]:
    """One job of the engine in this process, whole; the curve ends with the last step."""
    values = datafree.job(row, TEACHER, seed, dataset, weights)
    spec = {key: value for key, value in values["spec"].items() if key != "evaluation"}
    with Path(os.devnull).open("w") as nowhere:
        run = WatchedRun(Job({**values, "spec": spec, "evaluation": None}, folder), Channel(nowhere), curve)
        run.execute()
    seconds, steps, _ = curve.points[-1]
    return {"steps": steps, "restarts": run.state.restarts, "end": seconds}


def run_published(seed: int, seconds: float, weights: Path, curve: Curve) -> dict[str, Any]:
    """The published algorithm for so many seconds; `end` is projected from the median iteration."""
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
    curve.look(student, len(each), surely=True)
    iteration = statistics.median(each)
    return {"steps": len(each), "iteration": iteration, "end": iteration * published_dafl.ITERATIONS}


def table(rows: Mapping[str, Mapping[str, Any]]) -> str:
    """Rows of a table in Markdown, one for each seed and side."""
    firsts = [f"first at {level:.0%}" for level in LEVELS]
    marks = [f"at {mark:.0f} s" for mark in MARKS]
    head = ("DAFL", "seed", *firsts, *marks, "last look", "end")
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
        f"projected: {end / 3600:.1f} h ({found['iteration']:.2f} s a step)" if "iteration" in found else f"{end:.0f} s"
    )
    return side, seed, *firsts, *marks, last, ends


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.datafree.cost", description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, required=True, help="mnist.npz")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0])
    parser.add_argument("--seconds", type=float, default=150.0, help="of a processor, for the published settings")
    parser.add_argument("--list", action="store_true", help="print what was measured, and run nothing")
    parser.add_argument("--results", type=Path, default=digits.RESULTS, help="where the teacher and figures are kept")
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
