"""Images from arrays of any usual shape and range of values, as bytes.

Shapes: N samples, C channels, H height, W width.
"""

import math
from typing import Any

import torch
from torch import Tensor

from worker.distillation.data.packed import Options, check_size
from worker.distillation.data.reading.decoding import DARK
from worker.distillation.data.resizing import at_once
from worker.distillation.errors import UploadError
from worker.distillation.limits import UploadLimits

SHAPES = "Send images as (N, H, W), (N, H, W, C) or (N, C, H, W)."
DIVIDED_TWICE = 0.02
"""Largest value of floats below which they are probably divided by 255 twice."""
ROUNDING = 0.001
"""How far floats may be outside 0 to 1 by rounding; they are clipped."""


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
        else:
            _warn_of_dark(name, float(array.max()), 255, notes)
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
        packed[start : start + count] = (part * (255 / most)).round_().clamp_(0, 255)
    return packed


def _channels_first(name: str, array: Any) -> Any:
    if array.ndim == 3:
        return array[:, None]
    if array.ndim == 4:
        return array if _channel_axis(name, array.shape) == 1 else array.transpose(0, 3, 1, 2)
    raise UploadError(f"{name} has the unsupported shape {array.shape}", SHAPES + _unflattened(array.shape))


def _unflattened(shape: tuple[int, ...]) -> str:
    """How to give rows of pixels their shape again, if it is a usual one."""
    length = shape[1] if len(shape) == 2 else 0
    if length and math.isqrt(length) ** 2 == length:
        return f" Rows of {length} grey values become images by `x.reshape(-1, {math.isqrt(length)}, {math.isqrt(length)})`."
    if length % 3 == 0 and length and math.isqrt(length // 3) ** 2 == length // 3:
        side = math.isqrt(length // 3)
        way = f"`x.reshape(-1, 3, {side}, {side})` if the colours follow each other as planes, as in CIFAR's files"
        return f" Rows of {length} values become images by {way}, else by `x.reshape(-1, {side}, {side}, 3)`."
    return ""


def _channel_axis(name: str, shape: tuple[int, ...]) -> int:
    for usual in ((1, 3), (2, 4)):
        axes = [axis for axis in (1, 3) if shape[axis] in usual]
        if len(axes) == 1:
            return axes[0]
    last = " MATLAB puts the images last: `x.transpose(3, 0, 1, 2)` puts them first." if shape[2] in (1, 3) else ""
    raise UploadError(
        f"the channel axis of {name} with shape {shape} is ambiguous",
        f"Send (N, H, W, C) or (N, C, H, W) with 1 or 3 channels.{last}",
    )


def _most(name: str, array: Any, options: Options, notes: list[str]) -> float:
    """The value that is white."""
    low, high = float(array.min()), float(array.max())
    if array.dtype.kind == "b":
        return 1.0
    if not math.isfinite(low + high):
        words = f"{name} has values that are NaN or infinite"
        raise UploadError(words, "Leave those images out, or replace the values with `numpy.nan_to_num`.")
    if array.dtype.kind == "f" and low >= -ROUNDING and high <= 1 + ROUNDING:
        if high < DIVIDED_TWICE:
            notes.append(
                f"{name}: the largest value is {high:.4g}, so that the images are black; was it divided by 255 twice?"
            )
        return 1.0
    if not (low >= 0 and high <= 65535) or (array.dtype.kind == "f" and high > 255):
        raise UploadError(
            f"{name} has values from {low:.4g} to {high:.4g}, outside 0 to 1 and 0 to 255", _undo(low, high)
        )
    if array.dtype.kind == "f" and high < 255 * DIVIDED_TWICE and bool((array != array.round()).any()):
        words = f"{name} has values from {low:.4g} to {high:.4g}, which are neither 0 to 1 nor 0 to 255"
        raise UploadError(words, "Clip values that resizing made larger (`x.clip(0, 1)`), or send the original bytes.")
    if high <= 255:
        notes.append(f"{name}: values of the type {array.dtype} were read as 0 to 255")
        _warn_of_dark(name, high, 255, notes)
        return 255.0
    if options.sixteen_bit == "refuse":
        raise UploadError(f"{name} has values up to {high:.0f}", "Set the option sixteen_bit to `scale`.")
    notes.append(f"{name}: values of the type {array.dtype} up to {high:.0f} were scaled from 0 to 65535 to 8 bits")
    _warn_of_dark(name, high, 65535, notes)
    return 65535.0


def _warn_of_dark(name: str, high: float, most: int, notes: list[str]) -> None:
    if high * 255 / most <= DARK + 0.5:
        notes.append(
            f"{name}: no value is above {high:.0f} of {most}, so that the images are nearly black; multiply the values"
        )


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
