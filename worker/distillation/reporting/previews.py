"""Previews: PNG images of batches and of filters."""

import math
from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor, nn

from worker.distillation.contract import InputContract

GAP = 2
"""Pixels between images."""
MOST_IMAGES = 256
LEAST_FILTER = 24
"""Approximate side of a shown filter in pixels."""
BETWEEN = 16
"""Pixels between two networks' filters."""


def write_grid(images: Tensor, contract: InputContract, path: Path, columns: int = 8) -> None:
    """Write a PNG of normalised images (N, C, H, W), row by row, at most 256 of them.

    Three channels are shown as RGB; otherwise the first channel is shown in grey. Values outside the range and infinite
    values are clipped, NaN is black.
    """
    _save(_sheet(images, contract, columns), path)


def write_pictures(pictures: Sequence[Sequence[Tensor]], path: Path) -> None:
    """Write a PNG of pictures (3, H, W) uint8 of one size in rows."""
    rows, columns = len(pictures), max(map(len, pictures))
    height, width = pictures[0][0].shape[1:]
    sheet = torch.full((rows * (height + GAP) - GAP, columns * (width + GAP) - GAP, 3), 255, dtype=torch.uint8)
    for row, each in enumerate(pictures):
        for column, picture in enumerate(each):
            top, left = row * (height + GAP), column * (width + GAP)
            sheet[top : top + height, left : left + width] = picture.permute(1, 2, 0)
    _save(sheet, path)


def write_filters(teacher: Tensor, student: Tensor, path: Path) -> None:
    """Write a PNG of two networks' filters (N, C, h, w), the teacher's on the left, the student's on the right.

    Grey is 0, and white is each network's largest magnitude; small filters are enlarged.
    """
    sheets = []
    for filters in (teacher, student):
        largest = filters.abs().amax().clamp_min(torch.finfo(filters.dtype).tiny)
        times = max(1, LEAST_FILTER // filters.shape[-1])
        shown = (0.5 + filters / (2 * largest)).repeat_interleave(times, 2).repeat_interleave(times, 3)
        channels, height, width = shown.shape[1:]
        plain = InputContract(channels, height, width, mean=(0.0,) * channels, std=(1.0,) * channels)
        sheets.append(_sheet(shown, plain, max(1, math.isqrt(len(shown)))))
    rows = max(len(sheet) for sheet in sheets)
    whole = [
        torch.nn.functional.pad(sheet, (0, 0, 0, BETWEEN * (sheet is sheets[0]), 0, rows - len(sheet)), value=255)
        for sheet in sheets
    ]
    _save(torch.cat(whole, dim=1), path)


def first_filters(network: nn.Module, contract: InputContract) -> Tensor | None:
    """The filters of a network's first convolution (N, C, h, w), or of a first linear layer on all pixels (N, C, H, W), at
    most 256; None if the first layer is neither."""
    first = next((each for each in network.parameters() if each.ndim > 1), None)
    if first is None:
        return None
    weight = first.detach().float().cpu()[:MOST_IMAGES]
    pixels = (contract.channels, contract.height, contract.width)
    if weight.ndim == 2 and weight.shape[1] == math.prod(pixels):
        return weight.unflatten(1, pixels)
    return weight if weight.ndim == 4 and weight.shape[1] == contract.channels else None


def means_by_class(images: Tensor, label: Tensor, classes: int) -> Tensor:
    """The mean image of every class (K, C, H, W) of images (N, C, H, W) with labels (N,); NaN for a class without images."""
    sums = images.new_zeros(classes, *images.shape[1:], dtype=torch.float32).index_add(0, label, images.float())
    return sums / torch.bincount(label, minlength=classes).view(-1, 1, 1, 1)


def _sheet(images: Tensor, contract: InputContract, columns: int) -> Tensor:
    """Images as one uint8 image (H, W, 3 or 1) on a white background."""
    pixels_NHWC = _pixels(images[:MOST_IMAGES], contract)
    count, height, width, channels = pixels_NHWC.shape
    columns = max(1, min(columns, count))
    rows = -(-count // columns)
    sheet = torch.full((rows * (height + GAP) - GAP, columns * (width + GAP) - GAP, channels), 255, dtype=torch.uint8)
    for number, image in enumerate(pixels_NHWC):
        top = number // columns * (height + GAP)
        left = number % columns * (width + GAP)
        sheet[top : top + height, left : left + width] = image
    return sheet


def _save(sheet: Tensor, path: Path) -> None:
    from PIL import Image

    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(sheet.squeeze(2).numpy()).save(path, format="PNG", optimize=True)


def _pixels(images: Tensor, contract: InputContract) -> Tensor:
    """Bytes (N, H, W, 3 or 1) on the CPU."""
    if images.dim() != 4 or not len(images):
        raise ValueError(f"images must have the shape (N, C, H, W) with N of at least 1, not {tuple(images.shape)}")
    value = images.detach().float().cpu()
    mean, std = (torch.tensor(each).view(-1, 1, 1) for each in (contract.mean, contract.std))
    value = torch.nan_to_num((value * std + mean) * 255, nan=0.0)
    shown = value if value.shape[1] == 3 else value[:, :1]
    return shown.round().clamp(0, 255).to(torch.uint8).permute(0, 2, 3, 1)
