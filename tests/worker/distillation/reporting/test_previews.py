"""Image grids, and the previews at the end of a run."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from tests.worker.distillation.killed_runs import job_of, run_whole
from worker.distillation import networks
from worker.distillation.contract import InputContract
from worker.distillation.reporting.previews import (
    BETWEEN,
    GAP,
    first_filters,
    means_by_class,
    write_filters,
    write_grid,
)

GREY = InputContract(1, 8, 8, (0.13,), (0.31,))
RGB = InputContract(3, 8, 10, (0.5, 0.4, 0.3), (0.2, 0.25, 0.3))


@pytest.mark.parametrize(("contract", "mode"), [(GREY, "L"), (RGB, "RGB")])
def test_pixels_are_shown_row_by_row(tmp_path: Path, contract: InputContract, mode: str):
    height, width = contract.height, contract.width
    pixel = torch.randint(256, (5, contract.channels, height, width))
    mean, std = (torch.tensor(each).view(-1, 1, 1) for each in (contract.mean, contract.std))
    write_grid((pixel / 255 - mean) / std, contract, tmp_path / "new" / "grid.png", columns=3)
    with Image.open(tmp_path / "new" / "grid.png") as image:
        assert image.mode == mode and image.size == (3 * (width + GAP) - GAP, 2 * (height + GAP) - GAP)
        sheet = np.asarray(image).reshape(image.height, image.width, -1)
    for number in range(5):
        top, left = number // 3 * (height + GAP), number % 3 * (width + GAP)
        assert np.array_equal(sheet[top : top + height, left : left + width], pixel[number].permute(1, 2, 0).numpy())
    assert (sheet[-height:, -width:] == 255).all()


def test_values_beyond_white_and_nan_are_clipped(tmp_path: Path):
    images = torch.stack([torch.full((1, 8, 8), value) for value in (1e30, -1e30, float("inf"), float("nan"))])
    write_grid(images, GREY, tmp_path / "grid.png", columns=4)
    with Image.open(tmp_path / "grid.png") as image:
        row = np.asarray(image)[0, :: 8 + GAP]
    assert row.tolist() == [255, 0, 255, 0]


def test_other_numbers_of_channels_show_the_first_and_no_images_are_an_error(tmp_path: Path):
    write_grid(torch.zeros(2, 5, 8, 8), InputContract(5, 8, 8, (0.5,) * 5, (0.5,) * 5), tmp_path / "grid.png")
    with Image.open(tmp_path / "grid.png") as image:
        assert image.mode == "L"
    with pytest.raises(ValueError, match="N of at least 1"):
        write_grid(torch.zeros(0, 1, 8, 8), GREY, tmp_path / "none.png")


def test_the_mean_of_a_class_is_that_of_its_images():
    images, label = torch.randn(7, 1, 8, 8), torch.tensor([2, 0, 2, 2, 0, 3, 0])
    means = means_by_class(images, label, 4)
    for number in (0, 2, 3):
        torch.testing.assert_close(means[number], images[label == number].mean(0))
    assert means[1].isnan().all()  # shown black


def test_filters_of_both_networks_are_side_by_side(tmp_path: Path):
    teacher, student = torch.full((4, 1, 5, 5), 0.5), torch.zeros(1, 1, 5, 5)
    student[0, 0, 0, 0] = -3.0
    write_filters(teacher, student, tmp_path / "filters.png")
    with Image.open(tmp_path / "filters.png") as image:
        sheet = np.asarray(image)
    side = 20  # five pixels, enlarged four times
    assert sheet.shape == (2 * side + GAP, (2 * side + GAP) + BETWEEN + side)
    assert (sheet[:side, :side] == 255).all()
    right = sheet[:, -side:]
    assert (right[:4, :4] == 0).all()  # the largest magnitude, negative
    assert (right[4:side, 4:] == 128).all()  # zero
    assert (right[side:] == 255).all()  # background


def test_the_first_filters_are_those_of_the_layer_that_reads_the_image():
    contract = InputContract(1, 16, 16, (0.0,), (1.0,))
    lenet, perceptron = (networks.build(name, 4, contract) for name in ("lenet5", "mlp"))
    assert first_filters(lenet, contract).equal(lenet.conv1.weight.detach())
    assert first_filters(perceptron, contract).equal(perceptron.fc1.weight.detach()[:256].view(256, 1, 16, 16))
    assert first_filters(torch.nn.Linear(7, 3), contract) is None


@pytest.mark.parametrize("source", ["dataset", "substitute", "noise"])
def test_a_run_ends_with_previews_of_class_means_and_filters(engine_inputs, tmp_path, source):
    folder = shutil.copytree(engine_inputs, tmp_path / "job")
    job = job_of(folder, source={"name": source}, objectives=[{"name": "kd"}])
    events = run_whole(type(job)({**job.values, "dataset": "inputs/dataset.safetensors"}, folder))
    shown = [event["name"] for event in events if event["event"] == "preview"][-2:]
    assert shown == ["class-means-00000005.png", "first-filters-00000005.png"]
    assert json.loads((folder / "output" / "report.json").read_text())["previews"][-2:] == shown
    with Image.open(folder / "previews" / shown[0]) as image:
        assert image.size == (4 * 16 + 3 * GAP, 16)


def test_a_generator_s_images_are_shown_at_the_end_too(engine_inputs, tmp_path):
    folder = shutil.copytree(engine_inputs, tmp_path / "job")
    source = {"name": "dafl", "generator_batch": 16, "generator_width": 4, "latent": 8, "pool_images": 64}
    events = run_whole(job_of(folder, source=source, objectives=[{"name": "kd"}]))
    previews = json.loads((folder / "output" / "report.json").read_text())["previews"]
    assert previews == [f"{name}-00000005.png" for name in ("samples", "class-means", "first-filters")]
    assert set(previews) <= {event["name"] for event in events if event["event"] == "preview"}
    assert [event["name"] for event in events if event["event"] == "preview"].count(previews[0]) == 1
    with Image.open(folder / "previews" / previews[0]) as image:
        assert image.size == (8 * 16 + 7 * GAP, 8 * 16 + 7 * GAP)


def test_the_means_of_a_dataset_are_those_of_its_labels(engine_inputs, tmp_path):
    """Images of class n are bright in rows 4n to 4n + 3."""
    folder = shutil.copytree(engine_inputs, tmp_path / "job")
    run_whole(job_of(folder))
    with Image.open(folder / "previews" / "class-means-00000005.png") as image:
        sheet = np.asarray(image).astype(float)
    for number in range(4):
        rows = sheet[:, number * (16 + GAP) : number * (16 + GAP) + 16].mean(1)
        assert set(rows.argsort()[-4:]) == set(range(4 * number, 4 * number + 4))
