"""Fills the folder that is carried to a machine with a GPU: `python -m benchmarks.gpu.prepare --data FOLDER`.

FOLDER holds `cifar10_jpeg.pack.xz`. With `--earlier RESULTS`, the rows of an earlier run go along, and the teachers that it trained
in half precision. The folder `carry/gpu` is not tracked by git, and may hold 64 MiB.
"""

import argparse
import shutil
import sys
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file

from benchmarks.gpu.images import PACK
from benchmarks.gpu.results import ROWS

CARRY = Path(__file__).parents[2] / "carry" / "gpu"
MOST_BYTES = 64 * 2**20


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.gpu.prepare", description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, required=True, help=f"folder with {PACK}")
    parser.add_argument("--earlier", type=Path, help="folder that an earlier run returned")
    parser.add_argument("--carry", type=Path, default=CARRY, help="folder to fill")
    arguments = parser.parse_args()
    arguments.carry.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(arguments.data / PACK, arguments.carry / PACK)
    if arguments.earlier is not None:
        take_along(arguments.earlier, arguments.carry / "earlier")
    size = sum(path.stat().st_size for path in arguments.carry.rglob("*") if path.is_file())
    print(f"{arguments.carry}: {size / 2**20:.1f} MiB")
    if size > MOST_BYTES:
        print(
            f"That is more than the {MOST_BYTES // 2**20} MiB that can be carried: remove a teacher.", file=sys.stderr
        )
        return 1
    return 0


def take_along(results: Path, folder: Path) -> None:
    """Copy the rows and the teachers of an earlier run; weights in half precision."""
    for path in results.rglob("*"):
        target = folder / path.relative_to(results)
        if path.name in (ROWS, "teacher.json"):
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(path, target)
        elif path.name == "teacher.safetensors":
            target.parent.mkdir(parents=True, exist_ok=True)
            save_file({name: halved(tensor) for name, tensor in load_file(path).items()}, target)


def halved(tensor: torch.Tensor) -> torch.Tensor:
    """A float tensor in half precision; others as they are."""
    return tensor.half() if tensor.is_floating_point() else tensor


if __name__ == "__main__":
    sys.exit(main())
