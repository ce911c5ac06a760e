"""Decoding a part of a JPEG file at the size that is needed.

The library simplejpeg decodes if it is installed, else Pillow. Both skip the resolution that is not needed (scaled inverse
transform), and Pillow resizes the part with antialiasing.
"""

import io
from functools import cache
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from PIL.Image import Image

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


def decode_part(encoded: memoryview, size: tuple[int, int], part: Part, out: Any) -> None:
    """Decode a part of an image into `out` (H, W, C) uint8, bilinear with antialiasing.

    Args:
        size: height and width of the stored image.
        part: what `out` shows.
        out: C is 1 for greyscale, 3 for RGB.

    Raises:
        ValueError, OSError: the file is damaged.
    """
    import numpy as np
    from PIL.Image import Resampling

    height, width, channels = out.shape
    image = _scaled(encoded, size, min(1.0, max(height / part[2], width / part[3])), channels)
    down, across = image.height / size[0], image.width / size[1]
    box = (part[1] * across, part[0] * down, (part[1] + part[3]) * across, (part[0] + part[2]) * down)
    box = (max(0.0, box[0]), max(0.0, box[1]), min(float(image.width), box[2]), min(float(image.height), box[3]))
    resized = image.resize((width, height), Resampling.BILINEAR, box=box)
    out[:] = np.asarray(resized).reshape(out.shape)


def _scaled(encoded: memoryview, size: tuple[int, int], needed: float, channels: int) -> "Image":
    """The whole image, at least `needed` times as large as it is stored."""
    from PIL import Image

    height, width = max(1, int(size[0] * needed)), max(1, int(size[1] * needed))
    library = _simplejpeg()
    if library is not None:
        space = "GRAY" if channels == 1 else "RGB"
        pixels = library.decode_jpeg(
            encoded, space, fastdct=False, fastupsample=False, min_height=height, min_width=width, min_factor=1
        )
        return Image.fromarray(pixels[:, :, 0] if channels == 1 else pixels)
    image: Image.Image = Image.open(io.BytesIO(encoded), formats=("JPEG",))
    mode = "L" if channels == 1 else "RGB"
    image.draft(mode, (width, height))
    image.load()
    return image if image.mode == mode else image.convert(mode)


def centred(size: tuple[int, int], height: int, width: int, share: float) -> Part:
    """The central part of an image of the aspect ratio of (height, width), which spans `share` of what fits.

    With 7/8, this is what resizing the shorter side to 256 and cropping 224 x 224 pixels at the centre shows.
    """
    scale = share * min(size[0] / height, size[1] / width)
    tall, wide = scale * height, scale * width
    return (size[0] - tall) / 2, (size[1] - wide) / 2, tall, wide
