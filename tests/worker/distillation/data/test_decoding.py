"""What decoding changes in images, pixel by pixel."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from tests.worker.distillation.data.made_files import encoded, folders, sixteen_bit, turned, zipped
from worker.distillation.data.packed import Options
from worker.distillation.data.reading.uploads import read_dataset
from worker.distillation.errors import UploadError
from worker.distillation.limits import UploadLimits


def first(path: Path, image: bytes, **options: Any) -> torch.Tensor:
    """The first of some images, (C, H, W)."""
    path.write_bytes(zipped({"a/0": image, "a/1": image, "b/0": image, "b/1": image}))
    return read_dataset(path, Options(**options), UploadLimits()).splits["train"][0][0]


def test_sixteen_bits_are_divided_by_257(tmp_path: Path) -> None:
    assert first(tmp_path / "sent", sixteen_bit()).flatten().tolist() == list(range(64))


def test_floats_of_a_tiff_are_scaled_by_one(tmp_path: Path) -> None:
    value = (np.arange(64, dtype=np.float32) / 63).reshape(8, 8)
    pixels = first(tmp_path / "sent", encoded(Image.fromarray(value), "TIFF"))
    assert np.array_equal(pixels[0].numpy(), np.rint(value * 255))


@pytest.mark.parametrize(("background", "behind"), [("white", 255), ("black", 0)])
def test_transparent_images_are_blended_with_the_background(tmp_path: Path, background: str, behind: int) -> None:
    colour, alpha = np.full((8, 8), 100.0), np.linspace(0, 255, 64).reshape(8, 8).round()
    image = Image.fromarray(np.stack([colour, colour, colour, alpha], axis=-1).astype(np.uint8))
    expected = (colour * alpha + behind * (255 - alpha)) / 255
    pixels = first(tmp_path / "sent", encoded(image), background=background)
    assert np.abs(pixels.numpy() - expected).max() <= 1
    assert first(tmp_path / "sent", encoded(image), background="drop").unique().tolist() == [100]


@pytest.mark.parametrize(("orientation", "turns"), [(3, 2), (6, 3), (8, 1)])
def test_orientation_is_applied_if_asked(tmp_path: Path, orientation: int, turns: int) -> None:
    plain = first(tmp_path / "sent", turned(orientation=1))
    other = first(tmp_path / "sent", turned(orientation=orientation), exif="apply")
    assert torch.equal(other, torch.rot90(plain, turns, (1, 2)))
    assert torch.equal(first(tmp_path / "sent", turned(orientation=orientation)), plain)


def test_twenty_broken_images_are_listed_and_all_counted(tmp_path: Path) -> None:
    (tmp_path / "sent").write_bytes(
        zipped({**folders("a", "b"), **{f"a/bad{number:02}.png": b"x" for number in range(25)}})
    )
    with pytest.raises(UploadError, match=r"25 images cannot be read: .*bad19.*; and 5 more") as caught:
        read_dataset(tmp_path / "sent", Options(), UploadLimits())
    assert "bad20" not in str(caught.value)
