"""The engine's training step beside other loops: `python -m benchmarks.loop`.

ResNet-56 teaches ResNet-20 on random images of CIFAR's shape, 0.1 cross-entropy and 0.9 KD, SGD. All loops run in one process and
take turns of a few steps, so that the load of the machine reaches all alike; medians over the turns, of wall time and of the
process's CPU time. Ratios are to the loop of each kind of augmentation that is named.
"""

import argparse
import json
import os
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from benchmarks.loop import peers
from benchmarks.loop.engine_loop import engine, write_inputs
from benchmarks.loop.setting import Setting, setting
from benchmarks.loop.turns import measured

AUGMENTATIONS = ("none", "standard")
QUICK = {"fold_teacher": True}
QUICKEST = {"fold_teacher": True, "teacher_precision": "bf16"}
CACHED = {"teacher_answers": "cached"}


def loops(given: Setting, folder: Path, views: int) -> dict[str, Callable[[], None]]:
    """A function that takes one step, by the name of the loop."""
    made: dict[str, Callable[[], None]] = {}
    for augmentation in AUGMENTATIONS:
        source = {"augmentation": augmentation}
        limited = source if augmentation == "none" else source | {"views": views}
        made |= {
            f"bare, {augmentation}": peers.bare(given, augmentation),
            f"usual, {augmentation}": peers.usual(given, augmentation),
            f"box, {augmentation}": peers.box(given, augmentation),
            f"engine, {augmentation}": engine(given, folder, source, {}),
            f"engine folded, {augmentation}": engine(given, folder, source, QUICK),
            f"engine folded bf16, {augmentation}": engine(given, folder, source, QUICKEST),
            f"engine cached, {augmentation}": engine(given, folder, limited, CACHED),
        }
    return made


def table(found: dict[str, dict[str, float]]) -> str:
    """The results as Markdown: milliseconds a step, and how many times as many steps the loop takes as the others."""
    lines = [
        "| loop | ms a step | CPU ms | times the bare loop | times the usual | times the box |",
        "|---|---|---|---|---|---|",
    ]
    for name, spent in found.items():
        others = [found[f"{other}, {name.split(', ')[1]}"]["cpu"] for other in ("bare", "usual", "box")]
        ratios = " | ".join(f"{other / spent['cpu']:.2f}" for other in others)
        lines.append(f"| {name} | {spent['wall']:.1f} | {spent['cpu']:.1f} | {ratios} |")
    return "\n".join(lines)


def main() -> int:
    arguments = _arguments()
    torch.set_num_threads(arguments.threads)
    given = setting(arguments.teacher, arguments.student, arguments.images, arguments.batch)
    before = os.getloadavg()[0]
    with tempfile.TemporaryDirectory(prefix="loop-") as folder:
        write_inputs(given, Path(folder))
        found = measured(loops(given, Path(folder), arguments.views), arguments.turns, arguments.steps)
    result: dict[str, Any] = {
        "torch": torch.__version__, "threads": arguments.threads, "batch": arguments.batch,
        "networks": [arguments.teacher, arguments.student], "turns": arguments.turns, "steps": arguments.steps,
        "load": [round(before, 1), round(os.getloadavg()[0], 1)], "milliseconds": found,
    }  # fmt: skip
    print(json.dumps(result) if arguments.json else table(found))
    return 0


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.loop", description=__doc__.splitlines()[0])
    parser.add_argument("--teacher", default="resnet56_cifar", help="a network's name")
    parser.add_argument("--student", default="resnet20_cifar", help="a network's name")
    parser.add_argument("--batch", type=int, default=64, help="images a step")
    parser.add_argument("--images", type=int, default=1024, help="images in the dataset")
    parser.add_argument("--views", type=int, default=2, help="augmented views of each image whose answers are cached")
    parser.add_argument("--threads", type=int, default=1, help="threads of torch")
    parser.add_argument("--turns", type=int, default=5, help="turns of each loop")
    parser.add_argument("--steps", type=int, default=6, help="steps in a turn")
    parser.add_argument("--json", action="store_true", help="print JSON instead of a table")
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
