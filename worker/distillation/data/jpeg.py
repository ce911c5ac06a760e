"""Decoding a part of a JPEG file at the size that is needed.

The library simplejpeg decodes if it is installed, else Pillow. Both skip the resolution that is not needed (scaled inverse
transform). torch resizes the part with antialiasing.
"""

import io
from functools import cache
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

Part = tuple[float, float, float, float]
"""Top, left, height and width of a part of an image, in pixels of the stored image."""


@cache
def decoder() -> str:
    """The name and the version of the library that decodes."""
    import PIL

    found = _simplejpeg()
    if found is None:
        return f"pillow {PIL.__version__}"
    return f"simplejpeg {getattr(found, '__version__', '')}".strip()


@cache
def _simplejpeg() -> Any:
    try:
        import simplejpeg
    except ImportError:
        return None
    return simplejpeg


def decode_part(encoded: memoryview, size: tuple[int, int], part: Part, out: Tensor) -> None:
    """Decode a part of an image into `out` (H, W, C) uint8, bilinear with antialiasing.

    Args:
        size: height and width of the stored image.
        part: what `out` shows.
        out: C is 1 for greyscale, 3 for RGB.

    Raises:
        ValueError, OSError: the file is damaged.
    """
    height, width = out.shape[:2]
    image = _scaled(encoded, size, min(1.0, max(height / part[2], width / part[3])), out.shape[2])
    down, across = image.shape[0] / size[0], image.shape[1] / size[1]
    top, tall = _pixels(part[0] * down, part[2] * down, image.shape[0])
    left, wide = _pixels(part[1] * across, part[3] * across, image.shape[1])
    shown = image[top : top + tall, left : left + wide]
    if (tall, wide) != (height, width):
        one_1CHW = shown.permute(2, 0, 1)[None]
        shown = F.interpolate(one_1CHW, (height, width), mode="bilinear", antialias=True)[0].permute(1, 2, 0)
    out.copy_(shown)


def _pixels(start: float, extent: float, most: int) -> tuple[int, int]:
    """The first pixel and the number of pixels of an interval in an image of `most` pixels."""
    count = min(most, max(1, round(extent)))
    return min(most - count, max(0, round(start))), count


def _scaled(encoded: memoryview, size: tuple[int, int], needed: float, channels: int) -> Tensor:
    """The whole image (H, W, C) uint8, at least `needed` times as large as it is stored."""
    import numpy as np
    from PIL import Image

    height, width = max(1, int(size[0] * needed)), max(1, int(size[1] * needed))
    library = _simplejpeg()
    if library is not None:
        space = "GRAY" if channels == 1 else "RGB"
        pixels = library.decode_jpeg(
            encoded, space, fastdct=False, fastupsample=False, min_height=height, min_width=width, min_factor=1
        )
        return torch.from_numpy(pixels)
    image: Any = Image.open(io.BytesIO(encoded), formats=("JPEG",))
    mode = "L" if channels == 1 else "RGB"
    image.draft(mode, (width, height))
    image.load()
    converted = image if image.mode == mode else image.convert(mode)
    return torch.from_numpy(np.array(converted)).view(converted.height, converted.width, channels)


def centred(size: tuple[int, int], height: int, width: int, share: float) -> Part:
    """The central part of an image of the aspect ratio of (height, width), which spans `share` of what fits.

    With 7/8, this is what resizing the shorter side to 256 and cropping 224 x 224 pixels at the centre shows.
    """
    scale = share * min(size[0] / height, size[1] / width)
    tall, wide = scale * height, scale * width
    return (size[0] - tall) / 2, (size[1] - wide) / 2, tall, wide
