"""Resizing images to one size: the shorter side is scaled, the longer side is cropped at the centre."""

import torch.nn.functional as F
from torch import Tensor

VALUES_AT_ONCE = 2**24
"""Maximum number of values converted to float32 at a time."""


def at_once(image: Tensor) -> int:
    """Number of images (N, C, H, W) to convert at a time."""
    return max(1, VALUES_AT_ONCE // max(1, image[:1].numel()))


def scale(image: Tensor, height: int, width: int) -> Tensor:
    """uint8 images (N, C, H, W) scaled to (N, C, height, width), bilinear with antialiasing, rounded to the nearest."""
    scaled = image.new_empty(*image.shape[:2], height, width)
    count = min(at_once(image), at_once(scaled))
    for part, target in zip(image.split(count), scaled.split(count), strict=True):
        target.copy_(
            F.interpolate(part.float(), (height, width), mode="bilinear", antialias=True).round_().clamp_(0, 255)
        )
    return scaled


def fill(image: Tensor, height: int, width: int) -> Tensor:
    """uint8 images (N, C, H, W) scaled until they cover (height, width), aspect ratio kept, then cropped at the centre."""
    ratio = max(height / image.shape[2], width / image.shape[3])
    scaled = scale(image, max(height, round(image.shape[2] * ratio)), max(width, round(image.shape[3] * ratio)))
    top = (scaled.shape[2] - height) // 2
    left = (scaled.shape[3] - width) // 2
    return scaled[:, :, top : top + height, left : left + width].contiguous()
