"""The comparison of all methods: the same teacher, student, images, steps and seeds for each.

    python -m benchmarks.compare --data PATH/mnist.npz

Runs each row of `benchmarks/compare/rows.py` once per seed with the bare engine, in its own process with one thread, and
writes `docs/comparison.md` and its plot. Results are stored in `results/comparison`, one line per run, under
a digest of the images, the teacher and the whole spec. A stopped comparison resumes where it was, and a row whose
defaults change is measured again. Changes of the code are not detected: `--again NAME` measures a row again.

With a GPU and `--cifar PATH/cifar10.npz` (the arrays of MNIST's file, with images of 32x32x3) it also runs some rows there.
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

from benchmarks.compare.page import write
from benchmarks.compare.protocols import CIFAR10, MNIST, PROTOCOLS, RESIDUAL, Files, Protocol, images
from benchmarks.compare.results import Store
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
        write_facts(protocol, files, store)
    write(PAGE, arguments.results)
    return 1 if failed else 0


def prepare(protocol: Protocol, npz: Path | None, folder: Path) -> Files:
    """The protocol's images and teachers, created once."""
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


def write_facts(protocol: Protocol, files: Files, store: Store) -> None:
    """Write `facts.json` for the page: the teachers' accuracy, and for each row the keys of its results, or why it has none."""
    accuracies = [json.loads(path.with_suffix(".json").read_text())["accuracy"] for path in files.teachers]
    rows = {row.name: kept(row, protocol, files, store) for row in LISTS[protocol.name]()}
    facts = {"teachers": accuracies, "rows": rows, "torch": torch.__version__}
    (store.path.parent / "facts.json").write_text(json.dumps(facts, indent=1))


def kept(row: Row, protocol: Protocol, files: Files, store: Store) -> dict[str, Any]:
    """The keys of a row's stored runs by seed, or the engine's error if it cannot run it."""
    try:
        orders = [order(row, seed, protocol, files) for seed in protocol.seeds]
    except SpecError as error:
        return {"refused": str(error)}
    return {"keys": {given.seed: given.key for given in orders if find(given, store) is not None}}


def wanted_orders(protocol: Protocol, files: Files, arguments: argparse.Namespace, store: Store) -> list[Order]:
    """The runs that are not stored yet, one seed after the other, so that all rows have equally many seeds; each job once."""
    named = {*arguments.only, *arguments.again}
    rows = [row for row in LISTS[protocol.name]() if not named or row.name in named]
    orders: dict[str, Order] = {}
    for row in rows:
        if "refused" in (found := kept(row, protocol, files, store)):
            print(f"{row.name}: {found['refused']}", flush=True)
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
    """Run the orders and store the results; returns the number of runs that failed."""
    failures = 0
    with _processes(at_once) as pool:
        futures: dict[Future[dict[str, Any]], Order] = {pool.submit(measure, each): each for each in orders}
        for number, future in enumerate(as_completed(futures), 1):
            given = futures[future]
            if (error := future.exception()) is not None:
                failures += 1
                print(f"{given.row}, seed {given.seed}: FAILED: {error!r}", flush=True)
                continue
            row = future.result()
            store.add(row)
            words = row.get("refused") or f"{row['accuracy']:.2%} in {row['processor_seconds']:.1f} CPU s"
            print(f"{number}/{len(futures)} {given.row}, seed {given.seed}: {words}", flush=True)
    return failures


def in_own_process(function: Any, *arguments: Any) -> Any:
    with _processes(1) as pool:
        return pool.submit(function, *arguments).result()


def _processes(at_once: int) -> ProcessPoolExecutor:
    """Processes that run one job each, forked from one that has imported torch and done nothing else."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["benchmarks.compare.runs", "torch._dynamo"])  # an optimiser imports the latter
    return ProcessPoolExecutor(at_once, context, max_tasks_per_child=1)


def _wanted(arguments: argparse.Namespace) -> Iterable[tuple[Protocol, Path | None]]:
    """The protocols to run, with their data; with `--page`, those that have results."""
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
    parser.add_argument("--only", nargs="+", default=[], metavar="NAME", help="measure only these rows")
    parser.add_argument(
        "--again", nargs="+", default=[], metavar="NAME", help="measure these rows even if they have results"
    )
    parser.add_argument("--seeds", type=int, metavar="COUNT", help="at most this many seeds; default: all")
    parser.add_argument("--at-once", type=int, default=2, help="parallel runs, with one thread each")
    parser.add_argument("--page", action="store_true", help="write the page from stored results and run nothing")
    parser.add_argument("--results", type=Path, default=digits.RESULTS / "comparison", help="folder for the results")
    arguments = parser.parse_args()
    if arguments.data is None and not arguments.page:
        parser.error("mnist.npz is missing: pass --data PATH, or run make compare MNIST=PATH")
    return arguments


if __name__ == "__main__":
    sys.exit(main())
