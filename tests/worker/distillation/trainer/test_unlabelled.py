"""Jobs on images without labels, and on labels whose classes are in another order than the teacher's."""

import json
import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from tests.worker.distillation.killed_runs import job_of, run_whole
from worker.distillation.data.packed import Packed
from worker.distillation.data.truth import nothing
from worker.distillation.errors import SpecError
from worker.distillation.job import Job

WARNING = "3 images were left out"


@pytest.fixture
def folder(engine_inputs: Path, tmp_path: Path) -> Path:
    copied = Path(shutil.copytree(engine_inputs, tmp_path / "job"))
    image = load_file(copied / "inputs/dataset.safetensors")["train.image"]
    packed = Packed("npz", {"train": (image, nothing(len(image)))}, (), [WARNING], labels="none")
    packed.write(copied / "inputs/images.safetensors")
    return copied


def with_images(job: Job) -> Job:
    return Job({**job.values, "dataset": "inputs/images.safetensors"}, job.folder)


def test_a_student_learns_from_the_teachers_answers(folder: Path) -> None:
    job = job_of(folder, source={"name": "substitute"}, objectives=[{"name": "kd", "weight": 1.0}])
    run_whole(with_images(job))
    report = json.loads((folder / "output/report.json").read_text())
    assert report["evaluation"] is None and f"the dataset: {WARNING}" in report["notes"]


def test_a_source_that_reads_labels_refuses_them(folder: Path) -> None:
    with pytest.raises(SpecError, match="has no labels, and the source `dataset` reads them"):
        run_whole(with_images(job_of(folder)))


def test_labels_are_matched_with_the_teachers_by_name(folder: Path) -> None:
    plain = job_of(folder)
    names, order = ["w", "x", "y", "z"], torch.tensor([2, 0, 3, 1])
    tensors = load_file(folder / "inputs/dataset.safetensors")
    own = {"class_names": json.dumps([names[number] for number in order])}
    save_file(
        tensors | {"train.label": order.argsort()[tensors["train.label"]]}, folder / "inputs/other.safetensors", own
    )
    values = {**plain.values, "dataset": "inputs/other.safetensors"}
    values["teacher"] = {**values["teacher"], "class_names": names}
    job = Job(values, folder)
    images = job.load_dataset(torch.device("cpu"))
    assert images is not None and torch.equal(images.label, tensors["train.label"])
    assert images.class_names == job.class_names == tuple(names)
    assert job.order_of_classes(folder / "inputs/other.safetensors") and not job.order_of_classes(
        folder / "inputs/dataset.safetensors"
    )
