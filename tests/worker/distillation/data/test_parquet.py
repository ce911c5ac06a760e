"""Parquet files: pixels are those of the encoded images, rows may be read in any order, and bad columns are refused."""

import io
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
import pyarrow
import pyarrow.parquet
import pytest
from PIL import Image

from tests.worker.distillation.data.made_files import parquet, picture
from worker.distillation.data.packed import Options
from worker.distillation.data.reading.parquet import ParquetArchive
from worker.distillation.data.reading.uploads import read_dataset
from worker.distillation.errors import UploadError
from worker.distillation.limits import UploadLimits


def written(folder: Path, columns: dict[str, Any]) -> Path:
    path = folder / "upload"
    pyarrow.parquet.write_table(pyarrow.table(columns), path)
    return path


def test_pixels_and_labels_are_those_of_the_rows(tmp_path: Path) -> None:
    path = tmp_path / "upload"
    path.write_bytes(parquet((2, 0, 1, 0), names=("ants", "bees", "cats")))
    pixels, label = read_dataset(path, Options(), UploadLimits()).splits["train"]
    assert label.tolist() == [2, 0, 1, 0]
    for row in range(4):
        expected = np.asarray(Image.open(io.BytesIO(picture(row)))).transpose(2, 0, 1)
        assert (pixels[row].numpy() == expected).all()


def test_rows_are_read_in_any_order(tmp_path: Path) -> None:
    (tmp_path / "upload").write_bytes(parquet(range(200)))
    archive = ParquetArchive({PurePosixPath("a"): lambda: str(tmp_path / "upload")}, UploadLimits())
    for row in (150, 3, 3, 199, 0, 64, 63):
        assert archive.read(PurePosixPath("a") / f"{row:09}") == picture(row)


@pytest.mark.parametrize(
    ("columns", "says"),
    [
        ({"text": ["a"], "label": [0]}, "has no column of images; its columns are ['text', 'label']"),
        ({"image": [b"x"], "label": [[0, 1]]}, "the column 'label' of 'data.parquet' holds list values"),
        ({"image": [b"x"], "label": [True]}, "holds bool values"),
        ({"image": [b"x"], "label": [-3]}, "the labels reach from -3 to -3"),
        ({"image": [None, b""], "label": [0, 1]}, "2 images cannot be read: 'data.parquet/000000000' is empty"),
    ],
)
def test_bad_columns_are_refused(tmp_path: Path, columns: dict[str, Any], says: str) -> None:
    with pytest.raises(UploadError) as caught:
        read_dataset(written(tmp_path, columns), Options(), UploadLimits())
    assert says in str(caught.value)


def test_limits_count_rows_and_bytes(tmp_path: Path) -> None:
    path = written(tmp_path, {"image": [picture(0)] * 5, "label": [0, 1, 0, 1, 0]})
    for limits in (UploadLimits(entries=4), UploadLimits(inflated_bytes=100)):
        with pytest.raises(UploadError, match="has 5 rows of"):
            read_dataset(path, Options(), limits)


def test_a_file_that_inflates_too_much_is_refused_before_it_is_read(tmp_path: Path) -> None:
    path = tmp_path / "upload"
    table = pyarrow.table({"image": [bytes(2**25)] * 4, "label": [0, 1, 0, 1]})
    pyarrow.parquet.write_table(table, path, compression="zstd", use_dictionary=False)
    with pytest.raises(UploadError, match="compression ratio"):
        read_dataset(path, Options(), UploadLimits())


def test_one_image_that_a_dictionary_repeats_very_often_is_refused(tmp_path: Path) -> None:
    path = written(tmp_path, {"image": pyarrow.array([picture()] * 50_000), "label": pyarrow.array([0, 1] * 25_000)})
    with pytest.raises(UploadError, match="compression ratio"):
        read_dataset(path, Options(), UploadLimits())
