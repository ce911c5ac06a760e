"""CIFAR-10 without data: the engine accepts its jobs, and the whole script runs once on a few small images."""

import json
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from safetensors.torch import save_file

from benchmarks.compare.protocols import CIFAR10, Files
from benchmarks.datafree.cifar import RECIPES, student_job, table
from worker.distillation import networks
from worker.distillation.check import check
from worker.distillation.contract import read_contract
from worker.distillation.job import Job

SMALL = replace(CIFAR10, teacher="resnet8_cifar", student="resnet8_cifar", device="cpu")
SOURCES = (
    "dafl", 'dafl preset="paper_cifar10"', "dfad", "zskt", "dfq", "deep_inversion", "cmi", "fast_meta", "nayer",
    "cpnet", "procedural",
    'fast_meta preset="paper"',
)  # fmt: skip


@pytest.mark.parametrize("recipe", RECIPES)
@pytest.mark.parametrize("source", SOURCES)
def test_the_engine_accepts_every_source(source, recipe, tmp_path):
    weights = tmp_path / "teacher.safetensors"
    save_file(networks.build(SMALL.teacher, 10, read_contract(SMALL.input), {}).state_dict(), weights)
    files = Files({}, tmp_path / "train", tmp_path / "test")
    job = student_job({"source": source, "recipe": recipe, "seed": 3}, SMALL, files, weights)
    spec = job["spec"]
    assert (spec["source"]["name"], spec["student"]["initial_weights"]) == (source.split()[0], "random")
    assert (spec["training"]["seed"], job["dataset"]) == (3, None)
    assert (spec["training"]["optimizer"], spec["training"]["learning_rate"] == 0.1) == (
        ("sgd", True) if recipe == "papers" else ("adam", False)
    )
    check(Job(job | {"spec": spec | {"training": spec["training"] | {"steps": 24}}}, tmp_path))


def test_the_table_lists_failed_runs():
    row = {
        "teacher": "resnet8_cifar", "student": "resnet8_cifar", "source": "dafl", "recipe": "own", "seed": 0,
        "seconds": 7.2, "error": "collapsed",
    }  # fmt: skip
    assert table([row]).splitlines()[-1].endswith("| dafl | own | 0 | collapsed | – | – | – | 7 |")


@pytest.mark.slow
@pytest.mark.timeout(1200)
def test_the_script_trains_a_teacher_once_and_stores_its_results(tmp_path):
    draw = np.random.default_rng(0)
    arrays = {}
    for split, count in (("train", 256), ("test", 60)):
        arrays[f"y_{split}"] = np.arange(count) % 10
        arrays[f"x_{split}"] = draw.integers(0, 60, (count, 32, 32, 3), dtype=np.uint8)
        arrays[f"x_{split}"] += (20 * arrays[f"y_{split}"]).astype(np.uint8)[:, None, None, None]
    np.savez(tmp_path / "cifar10.npz", **arrays)
    results = tmp_path / "results"

    def run(*more: str) -> str:
        command = [
            sys.executable, "-m", "benchmarks.datafree.cifar", "--device", "cpu", "--teacher", SMALL.teacher, "--student",
            SMALL.student, "--teacher-minutes", "1", "--pilot", "0.3", "--results", str(results), *more,
        ]  # fmt: skip
        environment = os.environ | {"OMP_NUM_THREADS": "1"}
        ran = subprocess.run(command, capture_output=True, text=True, env=environment, check=False)
        assert ran.returncode == 0, ran.stderr
        return ran.stdout

    run("--npz", str(tmp_path / "cifar10.npz"))
    teacher = json.loads((results / "resnet8_cifar.json").read_text())
    assert teacher["steps"] > 1 and teacher["seconds"] + teacher["pilot_seconds"] < 120
    trained = (results / "resnet8_cifar.safetensors").stat().st_mtime_ns
    source = "dafl generator_batch=16 generator_width=4 pool_images=64"
    run("--sources", source, "--minutes", "1", "--recipe", "papers")
    run("--sources", source, "--steps", "3")
    again = run("--sources", source, "--steps", "3")
    rows = [json.loads(line) for line in (results / "rows.jsonl").read_text().splitlines()]
    assert [(row["recipe"], row["length"]) for row in rows] == [("papers", "1 minutes"), ("own", "3 steps")]
    assert rows[0]["steps"] >= 1 and rows[0]["seconds"] + rows[0]["pilot_seconds"] < 120 and rows[1]["steps"] == 3
    assert all(
        0 <= row["agreement"] <= 1 and row["relative"] == pytest.approx(row["accuracy"] / teacher["accuracy"], abs=1e-4)
        for row in rows
    )
    assert (results / "resnet8_cifar.safetensors").stat().st_mtime_ns == trained
    assert str(rows[1]["steps"]) in again and not Path(results / "cifar10.npz").exists()
