"""The twelve teachers: what they cover, and that the engine accepts every row's job."""

from dataclasses import replace

import pytest
import torch
from safetensors.torch import load_file, save_file

from benchmarks.datafree.robustness import CONSTANT, ROWS, job, table, write_images
from worker.distillation import networks
from worker.distillation.check import check
from worker.distillation.job import Job

CLASSES = {"digits": 10, "pairs": 100, "even": 2, "five": 5}
STATISTICS = {
    "LeNet-5 with BatchNorm",
    "ResNet-8",
    "VGG-8 of 16 channels, 5 classes, colour",
    "WRN-10-2",
    "timm's test_resnet, 96 pixels",
}


def test_there_are_twelve_teachers_and_one_with_a_constant_output():
    assert len(ROWS.keys() - {CONSTANT}) == 12
    rows = [row for name, row in ROWS.items() if name != CONSTANT]
    assert {row.channels for row in rows} == {1, 3}
    assert {CLASSES[row.images] for row in rows} == {2, 5, 10, 100}
    assert (min(row.height for row in rows), max(row.height for row in rows)) == (16, 96)


@pytest.mark.parametrize("name", ROWS)
def test_the_engine_accepts_every_row(name, tmp_path):
    row, classes = ROWS[name], CLASSES[ROWS[name].images]
    weights = tmp_path / "teacher.safetensors"
    save_file(networks.build(row.network, classes, row.contract, dict(row.options)).state_dict(), weights)
    content = job(row, "auto", 24, 3, classes, tmp_path / "dataset", weights)
    assert content["spec"]["source"]["name"] == ("fast_meta" if name in STATISTICS else "procedural")
    assert (content["spec"]["training"]["steps"], content["spec"]["training"]["seed"]) == (24, 3)
    check(Job(content, tmp_path))


@pytest.mark.parametrize("images", CLASSES)
def test_images_have_the_rows_size_and_classes(images, tmp_path):
    row = replace(ROWS["LeNet-5"], images=images, channels=3, height=8, width=12)
    path, classes = write_images(row, tmp_path)
    tensors = load_file(path)
    assert classes == CLASSES[images] == len(tensors["test.label"].unique())
    assert tensors["train.image"].shape[1:] == (3, 8, 12) and tensors["train.image"].dtype == torch.uint8


def test_the_table_lists_failed_runs():
    row = {
        "row": CONSTANT, "asked": "auto", "steps": 24, "seed": 0, "teacher_accuracy": 0.1, "source": "dafl",
        "initial_weights": "teacher", "cpu_seconds": 7.2, "error": "collapsed",
    }  # fmt: skip
    line = "| constant output | 10.0% | dafl (chosen) | teacher | 24 | 0 | collapsed | – | 7 |"
    assert table([row]).splitlines()[-1] == line


def test_a_source_may_have_parameters(tmp_path):
    row, weights = ROWS["MLP"], tmp_path / "teacher.safetensors"
    save_file(networks.build(row.network, 10, row.contract, dict(row.options)).state_dict(), weights)
    asked = 'dafl entropy_weight=20 labels="teacher"'
    source = job(row, asked, 24, 0, 10, tmp_path / "dataset", weights)["spec"]["source"]
    assert (source["name"], source["entropy_weight"], source["labels"]) == ("dafl", 20, "teacher")
