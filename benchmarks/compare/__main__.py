"""The fair comparison: every method with the same teacher, student, images, steps and seeds.

    python -m benchmarks.compare --data PATH/mnist.npz

Runs each row of `benchmarks/compare/rows.py` once a seed by the bare engine, in a process of its own with one thread, and
writes `docs/comparison.md` and its picture. What was measured is kept in `results/comparison`, one line a run, under
a digest of the images, the teacher and the whole spec: a run that was stopped goes on where it was, and a row whose
defaults change is measured again. Code that changes is not seen: `--again NAME` measures a row anew.

With a GPU and `--cifar PATH/cifar10.npz` (arrays as in MNIST's file, images of 32x32x3) it also runs a few rows there.
"""

import argparse
import json
import multiprocessing
import os
import shutil
import sys
import tempfile
from collections.abc import Iterable
from concurrent.futures import Future, ProcessPoolExecutor, as_completed
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from benchmarks.compare.figures import Store
from benchmarks.compare.page import write
from benchmarks.compare.protocols import CIFAR10, MNIST, PROTOCOLS, RESIDUAL, Files, Protocol, images
from benchmarks.compare.rows import LISTS, Row
from benchmarks.compare.runs import Order, find, measure, order, train_teacher
from benchmarks.mnist import digits
from worker.distillation.errors import SpecError

PAGE = Path(__file__).parents[2] / "docs" / "comparison.md"


def main() -> int:
    arguments = _arguments()
    os.environ["OMP_NUM_THREADS"] = "1"
    failed = 0
    for protocol, npz in _wanted(arguments):
        folder = arguments.results / protocol.name
        store = Store(folder / "rows.jsonl")
        files = prepare(protocol, npz, folder)
        if not arguments.page:
            orders = wanted_orders(protocol, files, arguments, store)
            print(f"{protocol.title}: {len(orders)} runs to go", flush=True)
            failed += run(orders, store, arguments.at_once)
        tell(protocol, files, store)
    write(PAGE, arguments.results)
    return 1 if failed else 0


def prepare(protocol: Protocol, npz: Path | None, folder: Path) -> Files:
    """The protocol's images and teachers, made once."""
    files = images(protocol, npz, folder)
    teachers = []
    for seed in range(protocol.teachers):
        path = folder / f"{protocol.teacher}_seed{seed}.safetensors"
        if not path.with_suffix(".json").exists():
            print(f"{protocol.title}: training teacher {seed}", flush=True)
            with tempfile.TemporaryDirectory(prefix="comparison-") as place:
                accuracy = in_own_process(train_teacher, protocol, files, seed, Path(place))
                shutil.copy(Path(place) / "output" / "student.safetensors", path)
            path.with_suffix(".json").write_text(json.dumps({"accuracy": accuracy}))
        teachers.append(path)
    return replace(files, teachers=tuple(teachers))


def tell(protocol: Protocol, files: Files, store: Store) -> None:
    """Leave `facts.json` for the page: the teachers' accuracy, and of each row the keys of what is kept, or why not."""
    accuracies = [json.loads(path.with_suffix(".json").read_text())["accuracy"] for path in files.teachers]
    rows = {row.name: kept(row, protocol, files, store) for row in LISTS[protocol.name]()}
    facts = {"teachers": accuracies, "rows": rows, "torch": torch.__version__}
    (store.path.parent / "facts.json").write_text(json.dumps(facts, indent=1))


def kept(row: Row, protocol: Protocol, files: Files, store: Store) -> dict[str, Any]:
    """Under which keys a row's runs are found, by seed, or why the engine cannot run it."""
    try:
        orders = [order(row, seed, protocol, files) for seed in protocol.seeds]
    except SpecError as error:
        return {"refused": str(error)}
    return {"keys": {given.seed: given.key for given in orders if find(given, store) is not None}}


def wanted_orders(protocol: Protocol, files: Files, arguments: argparse.Namespace, store: Store) -> list[Order]:
    """The runs that are not kept yet, a seed after the other, so that all rows have as many seeds; each job once."""
    named = {*arguments.only, *arguments.again}
    rows = [row for row in LISTS[protocol.name]() if not named or row.name in named]
    orders: dict[str, Order] = {}
    for row in rows:
        if "refused" in (told := kept(row, protocol, files, store)):
            print(f"{row.name}: {told['refused']}", flush=True)
    for seed in protocol.seeds[: arguments.seeds]:
        for row in rows:
            try:
                given = order(row, seed, protocol, files)
            except SpecError:
                continue
            if row.name in arguments.again or find(given, store) is None:
                orders.setdefault(given.key, given)
    return list(orders.values())


def run(orders: Iterable[Order], store: Store, at_once: int) -> int:
    """Run and keep; gives how many broke."""
    broken = 0
    with _processes(at_once) as pool:
        futures: dict[Future[dict[str, Any]], Order] = {pool.submit(measure, each): each for each in orders}
        for number, future in enumerate(as_completed(futures), 1):
            given = futures[future]
            if (error := future.exception()) is not None:
                broken += 1
                print(f"{given.row}, seed {given.seed}: BROKE: {error!r}", flush=True)
                continue
            row = future.result()
            store.add(row)
            words = row.get("refused") or f"{row['accuracy']:.2%} in {row['processor_seconds']:.1f} s of processor"
            print(f"{number}/{len(futures)} {given.row}, seed {given.seed}: {words}", flush=True)
    return broken


def in_own_process(function: Any, *arguments: Any) -> Any:
    with _processes(1) as pool:
        return pool.submit(function, *arguments).result()


def _processes(at_once: int) -> ProcessPoolExecutor:
    """Processes that run one job each; they are forked from one that has imported torch and done nothing else."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["benchmarks.compare.runs", "torch._dynamo"])  # an optimiser imports the latter
    return ProcessPoolExecutor(at_once, context, max_tasks_per_child=1)


def _wanted(arguments: argparse.Namespace) -> Iterable[tuple[Protocol, Path | None]]:
    """The protocols to run, with their data; for the page alone, those that were begun."""
    for protocol in (PROTOCOLS[name] for name in arguments.protocols):
        npz = arguments.cifar if protocol is CIFAR10 else arguments.data
        if arguments.page:
            if (arguments.results / protocol.name / "rows.jsonl").exists():
                yield protocol, None
        elif protocol is CIFAR10 and (npz is None or not torch.cuda.is_available()):
            print(f"{protocol.title}: not run, it needs a GPU and --cifar", flush=True)
        else:
            yield protocol, npz


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.compare", description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, default=os.environ.get("MNIST") or None, help="mnist.npz")
    parser.add_argument("--cifar", type=Path, default=os.environ.get("CIFAR") or None, help="cifar10.npz")
    names = [MNIST.name, RESIDUAL.name, CIFAR10.name]
    parser.add_argument("--protocols", nargs="+", choices=names, default=names)
    parser.add_argument("--only", nargs="+", default=[], metavar="NAME", help="these rows")
    parser.add_argument("--again", nargs="+", default=[], metavar="NAME", help="these rows, kept or not")
    parser.add_argument("--seeds", type=int, metavar="COUNT", help="no more than so many; all if left out")
    parser.add_argument("--at-once", type=int, default=2, help="runs at once, of one thread each")
    parser.add_argument("--page", action="store_true", help="write the page of what is kept, and run nothing")
    parser.add_argument("--results", type=Path, default=digits.RESULTS / "comparison", help="where figures are kept")
    arguments = parser.parse_args()
    if arguments.data is None and not arguments.page:
        parser.error("say where mnist.npz lies: --data PATH, or make compare MNIST=PATH")
    return arguments


if __name__ == "__main__":
    sys.exit(main())
