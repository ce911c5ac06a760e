"""Datasets as a zip of class folders, valid and malicious."""

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

from worker.distillation.data.packed import Options, Packed
from worker.distillation.data.reading.uploads import read_dataset
from worker.distillation.errors import UploadError
from worker.distillation.limits import UploadLimits

RNG = np.random.default_rng(0)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "upload.zip"


def image(height: int = 8, width: int = 8, mode: str = "RGB", kind: str = "PNG", **saving: Any) -> bytes:
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
    return read_dataset(path, Options(**options), limits or UploadLimits())


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
    write(path, {f"{top}{split}/{name}/{split}.png": image() for split in (train, test) for name in "ab"})
    packed = read(path)
    assert {split: label.tolist() for split, (_, label) in packed.splits.items()} == {"train": [0, 1], "test": [0, 1]}


def test_validation_folder_is_ignored_with_a_warning_if_there_is_a_test_folder(path: Path):
    write(path, {f"{split}/{name}/1.png": image() for split in ("train", "val", "test") for name in "ab"})
    packed = read(path)
    assert set(packed.splits) == {"train", "test"} and "validation split were ignored" in packed.warnings[0]


def test_a_folder_named_like_a_split_is_no_class(path: Path):
    write(path, {"train/1.png": image(), "bus/1.png": image(), "car/1.png": image()})
    refused(path, r"folders named like splits \(`train`\) beside others \(`bus`, `car`\)")
    write(path, {f"{split}/{name}/1.png": image() for split in ("train", "test") for name in ("bus", "train")})
    assert read(path).class_names == ("bus", "train")


def test_system_files_are_skipped_and_other_files_give_a_warning(path: Path):
    system_files = {
        "__MACOSX/a/._1.png": b"x",
        "a/.DS_Store": b"x",
        "Thumbs.db": b"x",
        ".git/a/1.png": b"x",
        "readme.txt": b"x",
    }
    write(path, {"a/1.png": image(), "b/1.png": image(), **system_files})
    packed = read(path)
    assert len(packed.splits["train"][0]) == 2 and packed.warnings == [
        "1 file is not an image and was ignored (readme.txt)"
    ]


@pytest.mark.parametrize(
    ("kind", "suffix", "saving"),
    [("JPEG", "jpeg", {"quality": 95}), ("BMP", "bmp", {}), ("WEBP", "webp", {"lossless": True})],
)
def test_formats(path: Path, kind: str, suffix: str, saving: dict[str, Any]):
    flat = np.full((8, 8, 3), (10, 100, 200), np.uint8)
    write(path, {f"{name}/1.{suffix}": encode(flat, kind, **saving) for name in "ab"})
    pixels = read(path).splits["train"][0]
    assert np.abs(pixels[0].permute(1, 2, 0).numpy().astype(int) - flat).max() <= 3


def test_greyscale_is_kept_unless_an_image_is_in_colour_or_the_option_is_set(path: Path):
    write(path, {f"{name}/1.png": image(mode="L") for name in "ab"})
    assert read(path).splits["train"][0].shape[1] == 1
    assert read(path, channels=3).splits["train"][0].shape[1] == 3
    write(path, {"a/1.png": image(mode="L"), "b/1.png": image(mode="RGBA")})
    packed = read(path)
    assert packed.splits["train"][0].shape[1] == 3 and packed.warnings == [
        "converted 1 of 2 images to RGB",
        "laid the transparent parts of 1 of 2 images on the background white",
    ]


def test_images_are_resized_to_the_most_common_size_or_to_the_option(path: Path):
    wide = np.zeros((16, 32), np.uint8)
    wide[:, 8:24] = 200
    write(path, {"a/1.png": image(8, 8, "L"), "a/2.png": image(8, 8, "L"), "b/1.png": encode(wide)})
    packed = read(path)
    assert packed.splits["train"][0].shape[2:] == (8, 8) and packed.splits["train"][0][
        2, :, :, 1:-1
    ].unique().tolist() == [200]
    assert "resized 1 of 3 images to 8x8" in packed.warnings[0]
    assert read(path, height=4, width=6).splits["train"][0].shape == (3, 1, 4, 6)


def test_numeric_folder_names_are_sorted_as_text_with_a_warning(path: Path):
    write(path, {f"{number}/1.png": image() for number in range(12)})
    packed = read(path)
    assert packed.class_names[:3] == ("0", "1", "10") and "sorted as text" in packed.warnings[0]


@pytest.mark.parametrize(
    "name", ["../a/1.png", "/a/1.png", "..\\a\\1.png", "C:/a/1.png", "C:\\a\\1.png", "a/../../1.png", "a//1.png"]
)
def test_paths_outside_the_archive_are_refused(path: Path, name: str):
    write(path, {"a/1.png": image(), name: image()})
    refused(path, "not relative to the archive")


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
        ({"1.png": b""}, "'1.png' is empty"),
        (
            {**dict.fromkeys(["1.png", "2.png", "3.png"], image()), "a/1.png": image(), "b/1.png": image()},
            "not in a class",
        ),
        ({"a/readme.txt": b""}, "contains no images"),
        ({"test/a/1.png": image(), "test/b/1.png": image()}, "no training images"),
        ({"a/1.png": b"hello", "b/1.png": image()}, "is not an image"),
        ({"a/1.png": image()[:-40], "b/1.png": image()}, "is damaged"),
        ({"a/1.png": image(kind="JPEG2000"), "b/1.png": image()}, "is not an image"),
    ],
)
def test_invalid_datasets_are_refused(path: Path, files: dict[str, bytes], words: str):
    write(path, files)
    refused(path, words)


def test_the_first_frame_of_an_animation_is_read(path: Path):
    frames = [Image.new("RGB", (8, 8), colour) for colour in ("red", "blue")]
    stream = io.BytesIO()
    frames[0].save(stream, "WEBP", save_all=True, append_images=frames[1:])
    write(path, {"a/1.webp": stream.getvalue(), "b/1.png": image()})
    packed = read(path)
    red = packed.splits["train"][0][0].float().mean((1, 2))
    assert red[0] > 240 and red[2] < 20 and packed.altered["first_frame"] == 1


def chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


@pytest.mark.parametrize("side", [8_000, 11_000, 40_000])
def test_images_with_too_many_pixels_are_refused_by_their_header(path: Path, side: int):
    header = chunk(b"IHDR", struct.pack(">IIBBBBB", side, side, 8, 2, 0, 0, 0))
    bomb = b"\x89PNG\r\n\x1a\n" + header + chunk(b"IDAT", zlib.compress(bytes(1000))) + chunk(b"IEND", b"")
    write(path, {"a/1.png": bomb, "b/1.png": image()})
    refused(path, "pixels")


def test_entry_larger_than_its_header_states_is_refused(path: Path):
    write(path, {"a/1.png": image(32, 32), "b/1.png": image()})
    data = path.read_bytes()
    with zipfile.ZipFile(path) as archive:
        size = struct.pack("<I", archive.getinfo("a/1.png").file_size)
    assert data.count(size) == 2
    path.write_bytes(data.replace(size, struct.pack("<I", 100)))
    refused(path, "cannot be read from the archive|truncated|damaged")


def test_limits(path: Path):
    write(path, {f"{name}/1.png": image() for name in "ab"})
    refused(path, "64 pixels; the maximum is 63", UploadLimits(pixels=63))
    refused(path, "bytes; the maximum is 20", UploadLimits(entry_bytes=20))
    refused(path, "384 bytes uncompressed", UploadLimits(dataset_bytes=383))


def test_entries_deep_in_folders_are_refused(path: Path):
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("a/" * 64 + "0.png", b"")
    with pytest.raises(UploadError, match="64 folders deep; the maximum is 63"):
        read_dataset(path, Options(), UploadLimits())
