"""Whole runs on photographs, killed and resumed."""

import shutil
from pathlib import Path
from typing import Any

import pytest

from tests.worker.distillation.data.photos import canonical, photographs
from tests.worker.distillation.killed_runs import job_of, run_killed, run_whole, same_bits, student_of, write_inputs
from worker.distillation.job import Job

CONSISTENT = {
    "source": {"name": "dataset", "augmentation": "consistent", "policy": "trivial_augment"},
    "objectives": [{"name": "kd", "weight": 1.0}],
}
LABELS = {"source": {"name": "dataset", "augmentation": "resized_crop", "colour_jitter": 0.4, "erasing": 0.25}}


@pytest.fixture(scope="module")
def inputs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("photographs")
    write_inputs(folder)
    canonical(folder / "inputs", photographs(60, ((70, 90), (300, 280)), classes=4), test_fraction=0.2)
    (folder / "inputs" / "upload.zip").unlink()
    return folder


def job(folder: Path, spec: dict[str, Any]) -> Job:
    training = {"steps": 5, "batch_size": 16, "validation_fraction": 0.2}
    made = job_of(folder, training=training, **spec)
    return Job({**made.values, "evaluation": "inputs/dataset.safetensors"}, folder)


@pytest.mark.parametrize("spec", [CONSISTENT, LABELS], ids=["consistent", "labels"])
def test_a_killed_run_on_photographs_continues_bit_for_bit(inputs: Path, tmp_path: Path, spec: dict[str, Any]) -> None:
    for name in ("whole", "killed"):
        shutil.copytree(inputs, tmp_path / name)
    run_whole(job(tmp_path / "whole", spec))
    run_killed(job(tmp_path / "killed", spec), 3, tmp_path / "restored")
    assert same_bits(student_of(tmp_path / "whole"), student_of(tmp_path / "restored"))
