"""Costs of photographs: `python -m benchmarks.photographs --folder FOLDER [--count 2000] [PART ...]`."""

import argparse
import json
from pathlib import Path

import torch

from benchmarks.photographs.costs import compare_loaders, extracted, inspect, machine, repeated, train
from benchmarks.photographs.made import write_zip
from benchmarks.photographs.step import compare

REPEATED = 30
PARTS = ("inspection", "large", "loader", "step", "memory")


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.photographs", description=__doc__)
    parser.add_argument(
        "--folder", type=Path, required=True, help="for the photographs that are made, and what is written"
    )
    parser.add_argument("--count", type=int, default=2000)
    parser.add_argument("parts", nargs="*", default=PARTS, metavar="PART", help=", ".join(PARTS))
    asked = parser.parse_args()
    torch.set_num_threads(1)
    asked.folder.mkdir(parents=True, exist_ok=True)
    upload = write_zip(asked.folder / f"{asked.count}.zip", asked.count)
    stored = asked.folder / f"stored-{asked.count}"
    dataset = stored / "dataset.safetensors"
    print(json.dumps({"machine": machine()}), flush=True)
    if "inspection" in asked.parts or not dataset.exists():
        print(json.dumps({"inspection, 500 x 375": inspect(upload, stored)}), flush=True)
    if "large" in asked.parts:
        large = write_zip(asked.folder / "large.zip", 24, 3000, 4000)
        print(json.dumps({"inspection, 12 megapixels": inspect(large, asked.folder / "stored-large")}), flush=True)
    if "loader" in asked.parts:
        files = extracted(upload, asked.folder / f"files-{asked.count}")
        found = compare_loaders(dataset, files, batches=10, rounds=5)
        print(json.dumps({"images by CPU second": found}), flush=True)
    if "step" in asked.parts:
        files = extracted(upload, asked.folder / f"files-{asked.count}")
        print(json.dumps({"step": compare(dataset, files, asked.folder / "step", turns=5, steps=2)}), flush=True)
    if "memory" in asked.parts:
        many = repeated(dataset, asked.folder / "repeated", REPEATED)
        for name, each in (("job", dataset), (f"job on {REPEATED} times as many", many)):
            print(json.dumps({name: train(each.absolute(), (asked.folder / "job").absolute())}), flush=True)


if __name__ == "__main__":
    main()
