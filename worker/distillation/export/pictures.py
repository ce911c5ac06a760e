"""Pictures of batches, for people to look at."""

from pathlib import Path

import torch
from torch import Tensor

from worker.distillation.source import InputContract

GAP = 2
"""Pixels between pictures."""
PICTURES_AT_MOST = 256


def write_grid(images: Tensor, contract: InputContract, path: Path, columns: int = 8) -> None:
    """Write a PNG of normalised images (N, C, H, W), row by row, at most 256 of them.

    Three channels are shown as RGB, otherwise the first one as grey; what is beyond black or white, or not finite, is clipped.
    """
    from PIL import Image

    pixels_NHWC = _pixels(images[:PICTURES_AT_MOST], contract)
    count, height, width, channels = pixels_NHWC.shape
    columns = max(1, min(columns, count))
    rows = -(-count // columns)
    sheet = torch.full((rows * (height + GAP) - GAP, columns * (width + GAP) - GAP, channels), 255, dtype=torch.uint8)
    for number, picture in enumerate(pixels_NHWC):
        top, left = number // columns * (height + GAP), number % columns * (width + GAP)
        sheet[top : top + height, left : left + width] = picture
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(sheet.squeeze(2).numpy()).save(path, format="PNG", optimize=True)


def _pixels(images: Tensor, contract: InputContract) -> Tensor:
    """Bytes (N, H, W, 3 or 1) on the CPU."""
    if images.dim() != 4 or not len(images):
        raise ValueError(f"images must be (N, C, H, W) with at least one, not {tuple(images.shape)}")
    value = images.detach().float().cpu()
    mean, std = (torch.tensor(each).view(-1, 1, 1) for each in (contract.mean, contract.std))
    value = torch.nan_to_num((value * std + mean) * 255, nan=0.0)
    shown = value if value.shape[1] == 3 else value[:, :1]
    return shown.round().clamp(0, 255).to(torch.uint8).permute(0, 2, 3, 1)
