"""Datasets as NumPy archives: arrays of images and labels, read without unpickling.

Shapes: N samples, C channels, H height, W width.
"""

import io
import math
import struct
from pathlib import Path, PurePosixPath
from typing import Any

import torch
from torch import Tensor

from worker.distillation.data import truth
from worker.distillation.data.archive import Archive, open_archive
from worker.distillation.data.packed import Options, Packed, check_privileged, check_size
from worker.distillation.data.resizing import at_once, fill
from worker.distillation.errors import UploadError
from worker.distillation.limits import UploadLimits

NAMES = {
    "train": (("x_train", "y_train"), ("images", "labels"), ("train_images", "train_labels")),
    "test": (("x_test", "y_test"), ("test_images", "test_labels")),
}
"""Array names of images and labels by split; the first pair in the file is read."""
PRIVILEGED = {"train": ("privileged", "privileged_train"), "test": ("privileged_test",)}
"""Array names of the samples' second images. They are not resized here, but later to the teacher's input size."""
RETRIEVAL = ("camera", "query")
"""Array names, followed by `_train` or `_test`, of the integers for the evaluation of embeddings."""
EXPECTED = "Send x_train and y_train (and x_test, y_test), or images and labels."
HEADER_BYTES = 65536


def read(path: Path, options: Options, limits: UploadLimits) -> Packed:
    """The dataset in an npz file.

    Raises:
        UploadError: arrays are missing, too large or damaged, or are not images and labels.
    """
    with open_archive(path, limits) as archive:
        arrays = {file.stem: file for file in archive.files if file.suffix == ".npy" and len(file.parts) == 1}
        pairs = {
            split: next((pair for pair in known if set(pair) <= set(arrays)), None) for split, known in NAMES.items()
        }
        if pairs["train"] is None:
            listed = ", ".join(sorted(arrays)[:20]) or "none"
            raise UploadError(f"the npz file has no training images and labels; its arrays are {listed}", EXPECTED)
        warnings: list[str] = []
        splits = {
            split: _read_pair(archive, arrays, pair, options, limits, warnings) for split, pair in pairs.items() if pair
        }
        privileged = {
            split: _pixels(name, _read_array(archive, arrays[name], limits), limits)
            for split, known in PRIVILEGED.items()
            if (name := next((each for each in known if each in arrays), ""))
        }
        retrieval = {
            split: {name: _numbers(f"{name}_{split}", archive, arrays, limits) for name in found}
            for split in splits
            if (found := [name for name in RETRIEVAL if f"{name}_{split}" in arrays])
        }
        names = _class_names(archive, arrays, limits)
    check_privileged(splits, privileged)
    classes = truth.check(splits, options.labels, limits, len(names) if names else None)
    truth.check_retrieval(retrieval, splits)
    if len({image.shape[1:] for image, _ in splits.values()}) > 1:
        raise UploadError(
            "training and test images differ in size or channels",
            "Send both with the same channels and size, or set the options height and width.",
        )
    return Packed(
        "npz", splits, names or tuple(map(str, range(classes))), warnings, privileged, options.labels, retrieval
    )


def _read_pair(
    archive: Archive,
    arrays: dict[str, PurePosixPath],
    pair: tuple[str, str],
    options: Options,
    limits: UploadLimits,
    warnings: list[str],
) -> tuple[Tensor, Tensor]:
    images = _pixels(pair[0], _read_array(archive, arrays[pair[0]], limits), limits)
    size = (options.height or images.shape[2], options.width or images.shape[3])
    if size != tuple(images.shape[2:]):
        check_size(len(images), (images.shape[1], *size), limits)
        warnings.append(
            f"{pair[0]}: resized from {images.shape[2]}x{images.shape[3]} to {size[0]}x{size[1]} (shorter side scaled, centre cropped)"
        )
        images = fill(images, *size)
    return images, truth.from_array(pair[1], _read_array(archive, arrays[pair[1]], limits), options.labels)


def _numbers(name: str, archive: Archive, arrays: dict[str, PurePosixPath], limits: UploadLimits) -> Tensor:
    """Cameras or queries (N,) int64; booleans are accepted."""
    array = _read_array(archive, arrays[name], limits)
    return truth.from_array(name, array.astype("uint8") if array.dtype.kind == "b" else array, "class")


def _read_array(archive: Archive, file: PurePosixPath, limits: UploadLimits) -> Any:
    """One array of numbers or text; the shape in its header is compared with its size before memory is allocated."""
    import numpy as np

    data = archive.read(file, limits.inflated_bytes)
    stream = io.BytesIO(data)
    try:
        version = np.lib.format.read_magic(stream)
        readers = {(1, 0): np.lib.format.read_array_header_1_0, (2, 0): np.lib.format.read_array_header_2_0}
        if version not in readers:
            raise ValueError(f"format version {version} is not supported")
        shape, fortran, kind = readers[version](stream, max_header_size=HEADER_BYTES)
    except (ValueError, TypeError, SyntaxError, EOFError, struct.error, RecursionError, MemoryError) as error:
        raise UploadError(
            f"{file} is not a NumPy array: {str(error)[:200]}", "Save the file again with `numpy.savez`."
        ) from error
    if kind.hasobject or kind.kind not in "buifU":
        raise UploadError(
            f"{file} has the unsupported type {kind}; Python objects are not read",
            "Save arrays of uint8 or float32.",
        )
    if any(length < 0 for length in shape) or math.prod(shape) * kind.itemsize != len(data) - stream.tell():
        raise UploadError(
            f"the shape {shape} in the header of {file} does not match the size of its data",
            "Save the file again with `numpy.savez`.",
        )
    flat = (
        np.frombuffer(data, dtype=kind, offset=stream.tell())
        if math.prod(shape) and kind.itemsize
        else np.empty(0, kind)
    )
    return flat.reshape(shape, order="F" if fortran else "C")


def _pixels(name: str, array: Any, limits: UploadLimits) -> Tensor:
    """uint8 images (N, C, H, W) from uint8 or floats in [0, 1] of shape (N, H, W), (N, H, W, C) or (N, C, H, W)."""
    import numpy as np

    if array.ndim == 3:
        array = array[:, None]
    elif array.ndim == 4:
        array = array if _channel_axis(name, array.shape) == 1 else array.transpose(0, 3, 1, 2)
    else:
        raise UploadError(
            f"{name} has the unsupported shape {array.shape}", "Send images as (N, H, W), (N, H, W, C) or (N, C, H, W)."
        )
    if not all(array.shape):
        raise UploadError(f"{name} is empty", "Send at least one image.")
    check_size(len(array), array.shape[1:], limits)
    if array.dtype == np.uint8:
        return torch.from_numpy(np.ascontiguousarray(array))
    if array.dtype.kind != "f":
        raise UploadError(
            f"{name} has the unsupported type {array.dtype}", "Send images as uint8, or as floats from 0 to 1."
        )
    packed = torch.empty(array.shape, dtype=torch.uint8)
    count = at_once(packed)
    for start in range(0, len(array), count):
        part = torch.from_numpy(array[start : start + count].astype(np.float32))
        if not bool(((part >= 0) & (part <= 1)).all()):
            raise UploadError(
                f"{name} has values outside 0 to 1, or NaN",
                "Send uint8, or floats from 0 to 1 that are not normalised.",
            )
        packed[start : start + count] = (part * 255).round_()
    return packed


def _channel_axis(name: str, shape: tuple[int, ...]) -> int:
    for usual in ((1, 3), (2, 4)):
        axes = [axis for axis in (1, 3) if shape[axis] in usual]
        if len(axes) == 1:
            return axes[0]
    raise UploadError(
        f"the channel axis of {name} with shape {shape} is ambiguous",
        "Send (N, H, W, C) or (N, C, H, W) with 1 or 3 channels.",
    )


def _class_names(archive: Archive, arrays: dict[str, PurePosixPath], limits: UploadLimits) -> tuple[str, ...]:
    if "class_names" not in arrays:
        return ()
    array = _read_array(archive, arrays["class_names"], limits)
    if array.ndim != 1 or array.dtype.kind != "U":
        raise UploadError(
            "class_names is not a one-dimensional array of strings",
            "Save it as `numpy.array(names)` of Python strings.",
        )
    return tuple(map(str, array.tolist()))
