"""Batched augmentation on the device that holds the images.

Shapes: B batch, C channels, H height, W width.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from worker.distillation.data.fields import Size, windowed

LEAST_SLICED = 2048
"""Bytes of an image from which a copy by image is faster than a gather on a CPU."""


@dataclass(frozen=True)
class Views:
    """The random crop and flip of each sample of an epoch: `shift` (N, 2) int64, rows and columns from 0 to twice the
    padding; `flip` (N,) bool. Drawn on the CPU, so that a run sees the same images on every device."""

    shift: Tensor
    flip: Tensor
    padding: int

    @classmethod
    def draw(cls, size: int, padding: int, flips: bool, generator: torch.Generator, device: torch.device) -> "Views":
        """Draw shifts uniformly over all positions of the padded image. If `flips`, mirror each image with probability 1/2."""
        shift = torch.randint(2 * padding + 1, (size, 2), generator=generator)
        flip = torch.randint(2, (size,), generator=generator).bool() if flips else torch.zeros(size, dtype=torch.bool)
        return cls(shift.to(device), flip.to(device), padding)

    def apply(self, image_BCHW: Tensor, chosen: Tensor) -> Tensor:
        """Crop and mirror the images; `chosen` (B,) gives their rows of `shift` and `flip`."""
        return crop_and_flip(image_BCHW, self.shift[chosen], self.flip[chosen], self.padding)

    def apply_fields(self, fields: Mapping[str, Tensor], chosen: Tensor, size: Size) -> dict[str, Tensor]:
        """The fields of these samples, of images of this size, moved as their images."""
        shift = self.shift[chosen].float() - self.padding
        window = torch.cat([shift, shift.new_tensor(size).expand(len(shift), 2)], dim=1)
        return windowed(fields, window, self.flip[chosen], size)


def crop_and_flip(image_BCHW: Tensor, shift_B2: Tensor, flip_B: Tensor, padding: int) -> Tensor:
    """Crop the zero-padded images to their original size and mirror those with `flip` left to right; channels last.

    The padding is black in pixel space, as in the usual random crop with padding (He et al., arXiv:1512.03385, section 4.2).
    """
    padded = F.pad(image_BCHW, (padding,) * 4)
    sliced = image_BCHW.device.type == "cpu" and image_BCHW[:1].numel() >= LEAST_SLICED
    by = _by_slices if sliced else _by_gathering
    return by(padded, shift_B2, flip_B, *image_BCHW.shape[2:])


def _by_slices(padded: Tensor, shift_B2: Tensor, flip_B: Tensor, height: int, width: int) -> Tensor:
    """One copy for each image, which is faster than a gather on a CPU."""
    batch, channels = padded.shape[:2]
    moved = padded.new_empty(batch, height, width, channels).permute(0, 3, 1, 2)
    for number, ((row, column), mirrored) in enumerate(zip(shift_B2.tolist(), flip_B.tolist(), strict=True)):
        part = padded[number, :, row : row + height, column : column + width]
        moved[number] = part.flip(-1) if mirrored else part
    return moved


def _by_gathering(padded: Tensor, shift_B2: Tensor, flip_B: Tensor, height: int, width: int) -> Tensor:
    """All images in one kernel."""
    batch, device = len(padded), padded.device
    column_W = torch.arange(width, device=device)
    rows_BH = shift_B2[:, :1] + torch.arange(height, device=device)
    columns_BW = shift_B2[:, 1:] + torch.where(flip_B[:, None], width - 1 - column_W, column_W)
    sample_B11 = torch.arange(batch, device=device)[:, None, None]
    gathered_BHWC = padded.permute(0, 2, 3, 1)[sample_B11, rows_BH[:, :, None], columns_BW[:, None, :]]
    return gathered_BHWC.permute(0, 3, 1, 2)
