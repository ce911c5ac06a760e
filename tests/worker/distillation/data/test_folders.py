"""Datasets as a zip of class folders, honest and hostile."""

import io
import stat
import struct
import zipfile
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from worker.distillation.data import folders
from worker.distillation.data.packed import Options, Packed
from worker.distillation.errors import UploadError
from worker.distillation.limits import UploadLimits

RNG = np.random.default_rng(0)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "upload.zip"


def picture(height: int = 8, width: int = 8, mode: str = "RGB", kind: str = "PNG", **saving: Any) -> bytes:
    shape = (height, width) if mode == "L" else (height, width, len(mode))
    return encode(RNG.integers(0, 256, shape, dtype=np.uint8), kind, **saving)


def encode(array: np.ndarray, kind: str = "PNG", **saving: Any) -> bytes:
    stream = io.BytesIO()
    Image.fromarray(array).save(stream, kind, **saving)
    return stream.getvalue()


def write(path: Path, files: dict[str, bytes]) -> None:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in files.items():
            archive.writestr(name, data)


def read(path: Path, limits: UploadLimits | None = None, **options: Any) -> Packed:
    return folders.read(path, Options(**options), limits or UploadLimits())


def refused(path: Path, words: str, limits: UploadLimits | None = None) -> None:
    with pytest.raises(UploadError, match=words) as caught:
        read(path, limits)
    assert caught.value.hint


def test_classes_pixels_and_order(path: Path):
    arrays = {
        f"{name}/{number}.png": RNG.integers(0, 256, (8, 10, 3), dtype=np.uint8)
        for name in ("dog", "cat")
        for number in range(3)
    }
    write(path, {name: encode(array) for name, array in arrays.items()})
    packed = read(path)
    image, label = packed.splits["train"]
    assert packed.class_names == ("cat", "dog") and label.tolist() == [0, 0, 0, 1, 1, 1]
    assert np.array_equal(image.permute(0, 2, 3, 1).numpy(), np.stack([arrays[name] for name in sorted(arrays)]))
    assert packed.warnings == []


@pytest.mark.parametrize("top", ["", "my data/"])
@pytest.mark.parametrize(("train", "test"), [("train", "test"), ("Training", "val"), ("train", "validation")])
def test_two_splits_within_a_folder_or_not(path: Path, top: str, train: str, test: str):
    write(path, {f"{top}{split}/{name}/{split}.png": picture() for split in (train, test) for name in "ab"})
    packed = read(path)
    assert {split: label.tolist() for split, (_, label) in packed.splits.items()} == {"train": [0, 1], "test": [0, 1]}


def test_validation_beside_a_test_folder_is_left_out_and_said(path: Path):
    write(path, {f"{split}/{name}/1.png": picture() for split in ("train", "val", "test") for name in "ab"})
    packed = read(path)
    assert set(packed.splits) == {"train", "test"} and "validation folder were left out" in packed.warnings[0]


def test_classes_called_train_and_test_are_classes(path: Path):
    write(path, {"train/1.png": picture(), "bus/1.png": picture()})
    assert read(path).class_names == ("bus", "train")


def test_litter_is_skipped_and_other_files_are_said(path: Path):
    litter = {
        "__MACOSX/a/._1.png": b"x",
        "a/.DS_Store": b"x",
        "Thumbs.db": b"x",
        ".git/a/1.png": b"x",
        "readme.txt": b"x",
    }
    write(path, {"a/1.png": picture(), "b/1.png": picture(), **litter})
    packed = read(path)
    assert len(packed.splits["train"][0]) == 2 and packed.warnings == [
        "1 files are no pictures and were left out (readme.txt)"
    ]


@pytest.mark.parametrize(
    ("kind", "suffix", "saving"),
    [("JPEG", "jpeg", {"quality": 95}), ("BMP", "bmp", {}), ("WEBP", "webp", {"lossless": True})],
)
def test_formats(path: Path, kind: str, suffix: str, saving: dict[str, Any]):
    flat = np.full((8, 8, 3), (10, 100, 200), np.uint8)
    write(path, {f"{name}/1.{suffix}": encode(flat, kind, **saving) for name in "ab"})
    image = read(path).splits["train"][0]
    assert np.abs(image[0].permute(1, 2, 0).numpy().astype(int) - flat).max() <= 3


def test_grey_stays_grey_unless_some_are_coloured_or_asked_otherwise(path: Path):
    write(path, {f"{name}/1.png": picture(mode="L") for name in "ab"})
    assert read(path).splits["train"][0].shape[1] == 1
    assert read(path, channels=3).splits["train"][0].shape[1] == 3
    write(path, {"a/1.png": picture(mode="L"), "b/1.png": picture(mode="RGBA")})
    packed = read(path)
    assert packed.splits["train"][0].shape[1] == 3 and packed.warnings == ["1 of 2 pictures were turned into RGB"]


def test_sizes_are_brought_to_the_commonest_or_to_the_one_asked_for(path: Path):
    wide = np.zeros((16, 32), np.uint8)
    wide[:, 8:24] = 200
    write(path, {"a/1.png": picture(8, 8, "L"), "a/2.png": picture(8, 8, "L"), "b/1.png": encode(wide)})
    packed = read(path)
    assert packed.splits["train"][0].shape[2:] == (8, 8) and packed.splits["train"][0][
        2, :, :, 1:-1
    ].unique().tolist() == [200]
    assert "1 of 3 pictures were brought to 8x8" in packed.warnings[0]
    assert read(path, height=4, width=6).splits["train"][0].shape == (3, 1, 4, 6)


def test_numbers_as_names_are_in_the_order_of_text_and_that_is_said(path: Path):
    write(path, {f"{number}/1.png": picture() for number in range(12)})
    packed = read(path)
    assert packed.class_names[:3] == ("0", "1", "10") and "order of text" in packed.warnings[0]


@pytest.mark.parametrize("name", ["../a/1.png", "/a/1.png", "a\\1.png", "C:/a/1.png", "a/../../1.png", "a//1.png"])
def test_names_that_leave_the_archive_are_refused(path: Path, name: str):
    write(path, {"a/1.png": picture(), name: picture()})
    refused(path, "outside of the archive")


@pytest.mark.parametrize("kind", [stat.S_IFLNK, stat.S_IFCHR, stat.S_IFIFO])
def test_links_and_devices_are_refused(path: Path, kind: int):
    entry = zipfile.ZipInfo("a/1.png")
    entry.external_attr = (kind | 0o644) << 16
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr(entry, "/etc/passwd")
    refused(path, "a link or a device")


@pytest.mark.parametrize(
    ("files", "words"),
    [
        ({"1.png": b""}, "in no class folder"),
        ({"a/readme.txt": b""}, "holds no pictures"),
        ({"a/1.png": picture(), "a/2.png": picture()}, "one class"),
        ({"test/a/1.png": picture(), "test/b/1.png": picture()}, "no training pictures"),
        ({"a/1.png": b"hello", "b/1.png": picture()}, "is not a PNG"),
        ({"a/1.png": picture()[:-40], "b/1.png": picture()}, "is damaged"),
        ({"a/1.png": encode(np.zeros((8, 8), np.uint16)), "b/1.png": picture()}, "of the kind I;16"),
        ({"a/1.png": picture(kind="GIF"), "b/1.png": picture()}, "is not a PNG"),
    ],
)
def test_what_is_no_dataset_is_refused(path: Path, files: dict[str, bytes], words: str):
    write(path, files)
    refused(path, words)


def test_animations_are_refused(path: Path):
    frames = [Image.new("RGB", (8, 8), colour) for colour in ("red", "blue")]
    stream = io.BytesIO()
    frames[0].save(stream, "WEBP", save_all=True, append_images=frames[1:])
    write(path, {"a/1.webp": stream.getvalue(), "b/1.png": picture()})
    refused(path, "an animation")


def chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


@pytest.mark.parametrize("side", [8_000, 11_000, 40_000])
def test_pictures_of_too_many_pixels_are_refused_by_their_header(path: Path, side: int):
    header = chunk(b"IHDR", struct.pack(">IIBBBBB", side, side, 8, 2, 0, 0, 0))
    bomb = b"\x89PNG\r\n\x1a\n" + header + chunk(b"IDAT", zlib.compress(bytes(1000))) + chunk(b"IEND", b"")
    write(path, {"a/1.png": bomb, "b/1.png": picture()})
    refused(path, "pixels")


def test_entry_that_inflates_to_more_than_it_says_is_refused(path: Path):
    write(path, {"a/1.png": picture(32, 32), "b/1.png": picture()})
    data = path.read_bytes()
    with zipfile.ZipFile(path) as archive:
        size = struct.pack("<I", archive.getinfo("a/1.png").file_size)
    assert data.count(size) == 2
    path.write_bytes(data.replace(size, struct.pack("<I", 100)))
    refused(path, "cannot be read from the archive|cut short|damaged")


def test_limits(path: Path):
    write(path, {f"{name}/1.png": picture() for name in "ab"})
    refused(path, "64 pixels; at most 63", UploadLimits(pixels=63))
    refused(path, "bytes; at most 20 are read", UploadLimits(entry_bytes=20))
    refused(path, "384 bytes when packed", UploadLimits(dataset_bytes=383))
