"""Grids of pictures."""

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from worker.distillation.export.pictures import GAP, write_grid
from worker.distillation.source import InputContract

GREY = InputContract(1, 8, 8, (0.13,), (0.31,))
RGB = InputContract(3, 8, 10, (0.5, 0.4, 0.3), (0.2, 0.25, 0.3))


@pytest.mark.parametrize(("contract", "mode"), [(GREY, "L"), (RGB, "RGB")])
def test_pixels_come_back_row_by_row(tmp_path: Path, contract: InputContract, mode: str):
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


def test_odd_channels_show_the_first_and_nothing_is_an_error(tmp_path: Path):
    write_grid(torch.zeros(2, 5, 8, 8), InputContract(5, 8, 8, (0.5,) * 5, (0.5,) * 5), tmp_path / "grid.png")
    with Image.open(tmp_path / "grid.png") as image:
        assert image.mode == "L"
    with pytest.raises(ValueError, match="at least one"):
        write_grid(torch.zeros(0, 1, 8, 8), GREY, tmp_path / "none.png")
