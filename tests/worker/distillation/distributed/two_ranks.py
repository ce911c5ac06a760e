"""Jobs on two ranks beside the same jobs in one process."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

from safetensors.torch import load_file

from tests.worker.distillation.distributed.rank_runs import run_case
from tests.worker.distillation.killed_runs import same_bits

ROOT = Path(__file__).parents[4]
RANK = (sys.executable, "-m", "tests.worker.distillation.distributed.rank_runs")
ENVIRONMENT = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}
TIMEOUT_SECONDS = 60.0
NEAR = 1e-9
"""In float64 the results of one process and of two differ by less than this."""


def run_on_two_ranks(inputs, folder, cases):
    """Run cases with two processes; return the folder that contains one folder per case."""
    shutil.copytree(inputs, folder, dirs_exist_ok=True)
    processes = [
        subprocess.Popen([*RANK, str(rank), str(folder), *cases], env=ENVIRONMENT, stderr=subprocess.PIPE, text=True)
        for rank in range(2)
    ]
    try:
        errors = [process.communicate(timeout=4 * TIMEOUT_SECONDS)[1] for process in processes]
    finally:
        for process in processes:
            process.kill()
    assert [process.returncode for process in processes] == [0, 0], "\n".join(errors)
    return folder


def distance(one, other):
    """The largest difference over all tensors, relative to the tensor's largest magnitude."""
    assert one.keys() == other.keys()
    return max(float((one[key] - other[key]).abs().max() / one[key].abs().max().clamp_min(1e-12)) for key in one)


def finals(folder):
    """The tensors of each rank at the end."""
    return [load_file(folder / f"final-{rank}.safetensors") for rank in range(2)]


def alone(inputs, folder, name):
    """The tensors of one process at the end of a case."""
    shutil.copytree(inputs, folder)
    run_case(name, folder)
    return load_file(folder / "final-0.safetensors")


def compare(made, folder):
    """A job in `folder` trains the same student on two ranks as in one process; `folder` and its neighbours are written to."""
    training = {"steps": 3, "epochs": None, "validation_fraction": 0.0, "selection": "last"}
    made.values["spec"]["training"] |= training
    (folder / "job.json").write_text(json.dumps(made.values))
    two = run_on_two_ranks(folder, folder.parent / "two", ["given"])
    first, second = finals(two / "given")
    assert distance(alone(folder, folder / "given", "given"), first) < NEAR
    assert same_bits(first, second)
