"""Datasets as npz files, valid and malicious."""

import io
import os
import struct
import tracemalloc
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors import safe_open

from worker.distillation.data.packed import Options, Packed
from worker.distillation.data.reading.uploads import read_dataset
from worker.distillation.errors import UploadError
from worker.distillation.limits import UploadLimits

RNG = np.random.default_rng(0)
LABEL = np.arange(6) % 3


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "upload"


def save(path: Path, **arrays: Any) -> None:
    with path.open("wb") as file:
        np.savez(file, **arrays)


def read(path: Path, limits: UploadLimits | None = None, **options: Any) -> Packed:
    return read_dataset(path, Options(**options), limits or UploadLimits())


def refused(path: Path, words: str, limits: UploadLimits | None = None) -> None:
    with pytest.raises(UploadError, match=words) as caught:
        read(path, limits)
    assert caught.value.hint


def pixels(*shape: int) -> np.ndarray:
    return RNG.integers(0, 256, shape, dtype=np.uint8)


@pytest.mark.parametrize(
    ("given", "channels_first"),
    [
        (pixels(6, 8, 10), lambda image: image[:, None]),
        (pixels(6, 8, 10, 3), lambda image: image.transpose(0, 3, 1, 2)),
        (pixels(6, 3, 8, 10), lambda image: image),
        (pixels(6, 8, 10, 1), lambda image: image.transpose(0, 3, 1, 2)),
        (np.asfortranarray(pixels(6, 8, 10, 3)), lambda image: image.transpose(0, 3, 1, 2)),
    ],
)
def test_layouts(path: Path, given: np.ndarray, channels_first: Any):
    save(path, x_train=given, y_train=LABEL)
    image, label = read(path).splits["train"]
    assert np.array_equal(image.numpy(), channels_first(given)) and image.dtype == torch.uint8
    assert label.tolist() == LABEL.tolist() and label.dtype == torch.int64


@pytest.mark.parametrize("kind", [np.float16, np.float32, np.float64, ">f4"])
def test_floats_from_zero_to_one_come_back_as_their_bytes(path: Path, kind: Any):
    given = pixels(6, 8, 8)
    save(path, images=(given / 255).astype(kind), labels=LABEL.astype(np.uint8)[:, None])
    image, _ = read(path).splits["train"]
    assert np.array_equal(image[:, 0].numpy(), given)


def test_two_splits_and_class_names(path: Path):
    save(
        path,
        x_train=pixels(6, 8, 8),
        y_train=LABEL,
        x_test=pixels(2, 8, 8),
        y_test=[0, 1],
        class_names=np.array(["ä", "b", "c"]),
    )
    packed = read(path)
    assert {split: len(label) for split, (_, label) in packed.splits.items()} == {"train": 6, "test": 2}
    assert packed.class_names == ("ä", "b", "c")


def test_compressed_files_are_read(path: Path):
    with path.open("wb") as file:
        np.savez_compressed(file, images=pixels(6, 8, 8), labels=LABEL)
    assert len(read(path).splits["train"][0]) == 6


def test_size_option_resizes_with_a_warning(path: Path):
    save(path, images=pixels(6, 8, 12), labels=LABEL)
    packed = read(path, height=16, width=16)
    assert packed.splits["train"][0].shape == (6, 1, 16, 16)
    assert "from 8x12 to 16x16" in packed.warnings[0]


def test_constant_border_is_cropped_at_the_centre(path: Path):
    wide = np.zeros((6, 8, 16), np.uint8)
    wide[:, :, 4:12] = 200
    save(path, images=wide, labels=LABEL)
    assert read(path, width=8).splits["train"][0].unique().tolist() == [200]


@pytest.mark.parametrize(
    ("arrays", "words"),
    [
        ({"x_train": pixels(6, 8, 8), "answers": LABEL}, "its arrays are answers, x_train"),
        ({"images": pixels(6, 8, 8), "labels": LABEL[:5]}, "6 images and 5 labels"),
        ({"images": pixels(6, 8, 8), "labels": LABEL - 1}, "negative"),
        ({"images": pixels(6, 8, 8), "labels": LABEL * 0}, "the same class"),
        ({"images": pixels(6, 8, 8), "labels": LABEL + 10**6}, "the maximum is 100000"),
        ({"images": pixels(6, 8, 8), "labels": LABEL + 2**40}, "contains the label"),
        ({"images": pixels(6, 8, 8), "labels": LABEL * 0.5}, "type float64"),
        ({"images": pixels(6, 64), "labels": LABEL}, r"unsupported shape \(6, 64\)"),
        ({"images": pixels(6, 8, 8, 7), "labels": LABEL}, "the channel axis"),
        ({"images": pixels(0, 8, 8), "labels": LABEL[:0]}, "empty"),
        ({"images": pixels(6, 8, 8).astype(np.complex64), "labels": LABEL}, "unsupported type complex64"),
        ({"images": pixels(6, 8, 8) * 1.0 + 1, "labels": LABEL}, "outside 0 to 1"),
        ({"images": np.full((6, 8, 8), np.nan, np.float32), "labels": LABEL}, "NaN or infinite"),
        ({"images": pixels(6, 8, 8), "labels": LABEL, "class_names": np.array(["a"])}, "1 class names"),
        ({"images": pixels(6, 8, 8), "labels": LABEL, "x_test": pixels(2, 9, 9), "y_test": [0, 1]}, "differ in size"),
    ],
)
def test_invalid_arrays_are_refused(path: Path, arrays: dict[str, Any], words: str):
    save(path, **arrays)
    refused(path, words)


class Payload:
    """Its pickle calls a function that creates a folder."""

    def __init__(self, marker: Path):
        self.marker = marker

    def __reduce__(self):
        return os.mkdir, (str(self.marker),)


def test_pickled_arrays_are_refused_and_not_run(path: Path, tmp_path: Path):
    objects = np.empty(6, dtype=object)
    objects[:] = [Payload(tmp_path / "was_run")] * 6
    save(path, images=pixels(6, 8, 8), labels=objects)
    refused(path, "Python objects")
    assert not (tmp_path / "was_run").exists()


def array_file(shape: str, data: bytes, kind: str = "|u1") -> bytes:
    header = f"{{'descr': '{kind}', 'fortran_order': False, 'shape': {shape}, }}".encode()
    header += b" " * (63 - (len(header) + 10) % 64) + b"\n"
    return b"\x93NUMPY\x01\x00" + struct.pack("<H", len(header)) + header + data


@pytest.mark.parametrize("shape", ["(4000000, 1000, 1000)", "(2, 8, 8)", "(-6, 8, -8)", "(True, 8, 8)"])
def test_header_that_does_not_match_the_size_is_refused_before_memory_is_allocated(path: Path, shape: str):
    stream = io.BytesIO()
    np.save(stream, LABEL)
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("images.npy", array_file(shape, bytes(384)))
        archive.writestr("labels.npy", stream.getvalue())
    refused(path, "the shape .* does not match the size|not a NumPy array")


@pytest.mark.parametrize(
    "data", [b"", b"\x93NUMPY", b"\x93NUMPY\x09\x00" + bytes(99), array_file("__import__('os').getpid()", b"")]
)
def test_malformed_array_is_refused(path: Path, data: bytes):
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("images.npy", data)
        archive.writestr("labels.npy", data)
    refused(path, "not a NumPy array")


def test_bomb_is_refused(path: Path):
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("images.npy", array_file("(6, 2048, 2048)", bytes(6 * 2**22)))
        archive.writestr("labels.npy", b"")
    assert path.stat().st_size < 2**16
    refused(path, "compression ratio of .* is above 200")


def test_limits_of_an_archive(path: Path):
    save(path, images=pixels(6, 8, 8), labels=LABEL)
    refused(path, "2 entries", UploadLimits(entries=1))
    refused(path, "larger than 500", UploadLimits(inflated_bytes=500))
    refused(path, "384 bytes uncompressed", UploadLimits(dataset_bytes=383))


def test_truncated_archive_is_refused(path: Path):
    save(path, images=pixels(6, 8, 8), labels=LABEL)
    path.write_bytes(path.read_bytes()[:-30])
    refused(path, "not a complete zip archive")


def test_second_images_are_read(path: Path, tmp_path: Path):
    grey, colour = pixels(6, 8, 10), pixels(6, 4, 4, 3)
    save(path, x_train=grey, y_train=LABEL, x_test=grey[:2], y_test=LABEL[:2], privileged=colour)
    packed = read(path, height=16, width=16)
    assert packed.splits["train"][0].shape == (6, 1, 16, 16)
    assert torch.equal(packed.privileged["train"], torch.from_numpy(colour.transpose(0, 3, 1, 2).copy()))
    packed.write(tmp_path / "canonical")
    with safe_open(tmp_path / "canonical", framework="pt") as file:
        kept = {name for name in file.keys() if name.endswith("privileged")}  # noqa: SIM118
        assert kept == {"train.privileged"}
    found = packed.findings()["privileged"]
    assert (found["channels"], found["height"], found["width"], found["splits"]) == (3, 4, 4, ["train"])
    assert found["mean"] == pytest.approx(colour.mean((0, 1, 2)) / 255)


def test_second_images_without_a_sample_are_refused(path: Path):
    grey = pixels(6, 8, 10)
    train = {"x_train": grey, "y_train": LABEL}
    save(path, **train, privileged=grey[:5])
    refused(path, "5 privileged images and 6 images")
    save(path, **train, privileged_test=grey)
    refused(path, "training samples have no privileged")
    save(path, **train, privileged=grey, privileged_test=grey)
    refused(path, "6 privileged images and 0 images")
    save(path, **train, x_test=grey, y_test=LABEL, privileged=grey, privileged_test=pixels(6, 4, 4))
    refused(path, "privileged images differ")


def test_a_dataset_without_second_images_has_no_privileged_findings(path: Path):
    save(path, x_train=pixels(6, 8, 10), y_train=LABEL)
    assert read(path).findings()["privileged"] is None


@pytest.mark.parametrize("first_label", [None, 0, 1])
def test_far_labels_are_refused_without_counting_to_them(path: Path, first_label: int | None):
    save(path, x_train=pixels(3, 8, 8), y_train=np.array([1, 2, 3_000_000]))
    tracemalloc.start()
    try:
        with pytest.raises(UploadError, match="the maximum is 100000"):
            read(path, first_label=first_label)
        assert tracemalloc.get_traced_memory()[1] < 20 * 2**20
    finally:
        tracemalloc.stop()
