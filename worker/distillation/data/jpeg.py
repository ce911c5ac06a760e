"""Decoding a part of a JPEG file at the size that is needed.

The library simplejpeg decodes if it is installed, else Pillow. Both skip the resolution that is not needed (scaled inverse
transform). torch resizes the part with antialiasing.
"""

import io
from contextlib import suppress
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

    found = library()
    if found is None:
        return f"pillow {PIL.__version__}"
    return f"simplejpeg {getattr(found, '__version__', '')}".strip()


@cache
def library() -> Any:
    """The module `simplejpeg`; None if it is not installed."""
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
    image = decode_scaled(encoded, size, min(1.0, max(height / part[2], width / part[3])), out.shape[2])
    down, across = image.shape[0] / size[0], image.shape[1] / size[1]
    top, tall = _pixels(part[0] * down, part[2] * down, image.shape[0])
    left, wide = _pixels(part[1] * across, part[3] * across, image.shape[1])
    out.copy_(resized(image[top : top + tall, left : left + wide], height, width))


def _pixels(start: float, extent: float, most: int) -> tuple[int, int]:
    """The first pixel and the number of pixels of an interval in an image of `most` pixels."""
    count = min(most, max(1, round(extent)))
    return min(most - count, max(0, round(start))), count


def decode_scaled(encoded: memoryview, size: tuple[int, int], needed: float, channels: int) -> Tensor:
    """The whole image (H, W, C) uint8, at least `needed` times as large as it is stored.

    Raises:
        ValueError, OSError: the file is damaged.
    """
    import numpy as np
    from PIL import Image

    height, width = max(1, int(size[0] * needed)), max(1, int(size[1] * needed))
    if (found := library()) is not None:
        space = "GRAY" if channels == 1 else "RGB"
        with suppress(ValueError):  # it refuses damage that Pillow accepts, such as bytes between segments
            return torch.from_numpy(found.decode_jpeg(encoded, space, min_height=height, min_width=width, min_factor=1))
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


def encode(pixels: Tensor, quality: int) -> bytes:
    """A JPEG file of pixels (H, W, C) uint8, with chroma at half the resolution."""
    from PIL import Image

    channels = pixels.shape[2]
    if (found := library()) is not None:
        space = "GRAY" if channels == 1 else "RGB"
        sampling = "Gray" if channels == 1 else "420"
        whole = pixels.contiguous().numpy()
        return bytes(found.encode_jpeg(whole, quality=quality, colorspace=space, colorsubsampling=sampling))
    stream = io.BytesIO()
    Image.fromarray(pixels[:, :, 0].numpy() if channels == 1 else pixels.numpy()).save(stream, "JPEG", quality=quality)
    return stream.getvalue()


def resized(pixels: Tensor, height: int, width: int) -> Tensor:
    """Pixels (H, W, C) uint8 resized, bilinear with antialiasing."""
    if tuple(pixels.shape[:2]) == (height, width):
        return pixels
    one_1CHW = pixels.permute(2, 0, 1)[None]
    return F.interpolate(one_1CHW, (height, width), mode="bilinear", antialias=True)[0].permute(1, 2, 0)
