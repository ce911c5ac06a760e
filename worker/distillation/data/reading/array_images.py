"""Images from arrays of any usual shape and range of values, as bytes.

Shapes: N samples, C channels, H height, W width.
"""

from typing import Any

import torch
from torch import Tensor

from worker.distillation.data.packed import Options, check_size
from worker.distillation.data.resizing import at_once
from worker.distillation.errors import UploadError
from worker.distillation.limits import UploadLimits

DIVIDED_TWICE = 0.02
"""Largest value of floats below which they are probably divided by 255 twice."""


def pixels(name: str, array: Any, options: Options, limits: UploadLimits, notes: list[str]) -> Tensor:
    """uint8 images (N, C, H, W) from an array (N, H, W), (N, H, W, C) or (N, C, H, W).

    Values are bytes; floats from 0 to 1, or from 0 to 255; other integers from 0 to 255, or to 65535.

    Raises:
        UploadError: the array has another shape, type or range.
    """
    import numpy as np

    array = _channels_first(name, array)
    if not all(array.shape):
        raise UploadError(f"{name} is empty", "Send at least one image.")
    check_size(len(array), array.shape[1:], limits)
    if array.dtype == np.uint8:
        if array.max() <= 1:
            notes.append(f"{name}: no value is above 1 of 255, so that the images are black; was it divided by 255?")
        return torch.from_numpy(np.ascontiguousarray(array))
    if array.dtype.kind not in "buif":
        raise UploadError(
            f"{name} has the unsupported type {array.dtype}", "Send images as uint8, or as floats from 0 to 1."
        )
    most = _most(name, array, options, notes)
    packed = torch.empty(array.shape, dtype=torch.uint8)
    count = at_once(packed)
    for start in range(0, len(array), count):
        part = torch.from_numpy(array[start : start + count].astype(np.float32))
        packed[start : start + count] = (part * (255 / most)).round_()
    return packed


def _channels_first(name: str, array: Any) -> Any:
    if array.ndim == 3:
        return array[:, None]
    if array.ndim == 4:
        return array if _channel_axis(name, array.shape) == 1 else array.transpose(0, 3, 1, 2)
    raise UploadError(
        f"{name} has the unsupported shape {array.shape}", "Send images as (N, H, W), (N, H, W, C) or (N, C, H, W)."
    )


def _channel_axis(name: str, shape: tuple[int, ...]) -> int:
    for usual in ((1, 3), (2, 4)):
        axes = [axis for axis in (1, 3) if shape[axis] in usual]
        if len(axes) == 1:
            return axes[0]
    raise UploadError(
        f"the channel axis of {name} with shape {shape} is ambiguous",
        "Send (N, H, W, C) or (N, C, H, W) with 1 or 3 channels.",
    )


def _most(name: str, array: Any, options: Options, notes: list[str]) -> float:
    """The value that is white."""
    low, high = float(array.min()), float(array.max())
    if array.dtype.kind == "b":
        return 1.0
    if not (low >= 0 and high <= 65535) or (array.dtype.kind == "f" and high > 255):
        raise UploadError(
            f"{name} has values from {low:.4g} to {high:.4g}, outside 0 to 1 and 0 to 255", _undo(low, high)
        )
    if array.dtype.kind == "f" and high <= 1:
        if high < DIVIDED_TWICE:
            notes.append(
                f"{name}: the largest value is {high:.4g}, so that the images are black; was it divided by 255 twice?"
            )
        return 1.0
    if high <= 255:
        notes.append(f"{name}: values of the type {array.dtype} were read as 0 to 255")
        return 255.0
    if options.sixteen_bit == "refuse":
        raise UploadError(f"{name} has values up to {high:.0f}", "Set the option sixteen_bit to `scale`.")
    notes.append(f"{name}: values of the type {array.dtype} up to {high:.0f} were scaled from 0 to 65535 to 8 bits")
    return 65535.0


def _undo(low: float, high: float) -> str:
    """How to undo what was done to the values."""
    if -1 <= low < 0 and high <= 1:
        return (
            "Values from -1 to 1 are normalised with mean 0.5 and std 0.5: send `x * 0.5 + 0.5`, or the original bytes."
        )
    if low < 0:
        return (
            "Negative values are normalised: send `x * std + mean` with the mean and std used, or the original bytes."
        )
    return "Send uint8, or floats from 0 to 1 that are not normalised."
