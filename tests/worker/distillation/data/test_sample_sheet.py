"""The sheet of a dataset's images: which are shown, and where."""

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from worker.distillation.data.sample_sheet import COLUMNS, GAP, MOST_ROWS, SIDE, write_samples


def picture(path: Path) -> np.ndarray:
    with Image.open(path) as image:
        return np.asarray(image.convert("RGB"))


def test_each_row_has_the_first_images_of_one_class(tmp_path: Path) -> None:
    label = torch.tensor([2, 0, 2, 2, 0])
    image = torch.arange(5, dtype=torch.uint8).mul(10).view(5, 1, 1, 1).expand(5, 1, 4, 6).contiguous()
    assert write_samples(image, label, "class", tmp_path / "a.png") == {"rows": [0, 2], "columns": COLUMNS}
    shown = picture(tmp_path / "a.png")
    assert shown.shape == (2 * (4 + GAP) - GAP, COLUMNS * (6 + GAP) - GAP, 3)
    found = [[int(shown[row * (4 + GAP), column * (6 + GAP), 0]) for column in range(3)] for row in range(2)]
    assert found == [[10, 40, 255], [0, 20, 30]]  # white where a class has no more


@pytest.mark.parametrize(("kind", "channels"), [("none", 3), ("multi_label", 1), ("target", 4)])
def test_without_classes_the_first_images_stand_in_order(tmp_path: Path, kind: str, channels: int) -> None:
    image = torch.arange(12, dtype=torch.uint8).view(12, 1, 1, 1).expand(12, channels, 3, 3).contiguous()
    assert write_samples(image, torch.zeros(12, 0), kind, tmp_path / "a.png")["rows"] is None
    shown = picture(tmp_path / "a.png")
    assert [int(shown[0, at * (3 + GAP), 0]) for at in range(COLUMNS)] == list(range(COLUMNS))
    assert int(shown[3 + GAP, 0, 1]) == COLUMNS


def test_a_sheet_of_large_images_of_many_classes_is_small(tmp_path: Path) -> None:
    image = torch.randint(0, 256, (40, 3, 100, 300), dtype=torch.uint8)
    write_samples(image, torch.arange(40), "class", tmp_path / "a.png")
    height, width, _ = picture(tmp_path / "a.png").shape
    assert width <= COLUMNS * (SIDE + GAP) and height <= MOST_ROWS * (SIDE + GAP)
