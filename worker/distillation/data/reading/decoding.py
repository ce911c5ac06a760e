"""One image file: what its header says, and its pixels as bytes.

Pillow decodes the images, restricted to a list of formats and a maximum number of pixels. What an image is, its first bytes
say, not its name.
"""

import io
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import PurePosixPath
from typing import Any

import torch
from torch import Tensor

from worker.distillation.data.packed import Options
from worker.distillation.data.reading.archives.archive import Archive
from worker.distillation.errors import UploadError

FORMATS = ("PNG", "JPEG", "BMP", "WEBP", "GIF", "TIFF", "PPM")
SUFFIXES = frozenset(
    [".png", ".jpg", ".jpeg", ".jpe", ".jfif", ".bmp", ".webp", ".gif", ".tif", ".tiff", ".ppm", ".pgm", ".pbm"]
)
UNREAD = frozenset(
    [".heic", ".heif", ".avif", ".jp2", ".j2k", ".jxl", ".svg", ".dcm", ".dicom", ".tga", ".exr", ".dng", ".cr2", ".nef", ".arw"]
)  # fmt: skip
"""Suffixes of images that are not read; such a file is a broken image, unless an image of the same name lies beside it."""
TIFF = (b"II*\0", b"MM\0*")
HEAD_BYTES = 16
HEADS = (b"\x89PNG\r\n\x1a\n", b"\xff\xd8\xff", b"GIF87a", b"GIF89a", *TIFF)
DEEP = frozenset({"I;16", "I;16B", "I;16L", "I;16N", "I", "F"})
"""Pillow's modes with more than eight bits for each value."""
GREY = frozenset({"1", "L", "LA", "La"}) | DEEP
COLOUR = frozenset({"P", "PA", "RGB", "RGBA", "RGBa", "RGBX", "CMYK", "YCbCr", "LAB", "HSV"})
DARK = 16
"""Largest byte of images that are nearly black, as values of 12 bits are when they are read as 16."""
ORIENTATION = 0x0112
SIDEWAYS = (5, 6, 7, 8)
"""EXIF orientations that exchange height and width."""


class BrokenImageError(UploadError):
    """An image file cannot be read."""


@dataclass(frozen=True)
class ImageFile:
    """An image file of the archive: its path, its class, and what its header says."""

    path: PurePosixPath
    label: str | None
    size: tuple[int, int]
    """Height and width, after the image is turned."""
    grey: bool
    altered: set[str] = field(default_factory=set)
    """What decoding changes, apart from size and channels."""


def is_image(head: bytes) -> bool:
    """Whether a file begins like an image of a known format."""
    riff = head[:4] == b"RIFF" and head[8:12] == b"WEBP"
    anymap = len(head) > 2 and head[:1] == b"P" and head[1:2] in b"123456" and head[2:3].isspace()
    bitmap = head[:2] == b"BM" and head[6:10] == bytes(4)
    return riff or anymap or bitmap or head.startswith(HEADS)


def sorted_out(archive: Archive) -> tuple[list[PurePosixPath], list[PurePosixPath]]:
    """The images, and the other files; a file without the suffix of an image is one if it begins like one."""
    images: list[PurePosixPath] = []
    others: list[PurePosixPath] = []
    for path in sorted(archive.files):
        named = path.suffix.lower() in SUFFIXES
        (images if named or is_image(archive.head(path, HEAD_BYTES)) else others).append(path)
    beside = {path.with_suffix("") for path in images}
    unread = {path for path in others if path.suffix.lower() in UNREAD and path.with_suffix("") not in beside}
    return sorted({*images, *unread}), [path for path in others if path not in unread]


def measure(archive: Archive, path: PurePosixPath, label: str | None, options: Options) -> ImageFile:
    """What the header of an image says.

    Raises:
        BrokenImageError: it cannot be read.
        UploadError: it has too many pixels.
    """
    shown = repr(str(path)[:120])
    altered = set()
    with quietly(), opened(archive.read(path), path) as image:
        width, height = image.size
        mode = image.mode
        frames = getattr(image, "n_frames", 1)
        turn = orientation(image)
        mpo = image.format == "MPO"
    if not 0 < width * height <= archive.limits.pixels:
        raise UploadError(
            f"{shown} has {width * height} pixels; the maximum is {archive.limits.pixels}", "Scale it down."
        )
    if mode not in GREY | COLOUR:
        raise BrokenImageError(
            f"{shown} has the unsupported pixel mode {mode}", "Convert it to 8-bit greyscale or RGB."
        )
    if mode in DEEP and options.sixteen_bit == "refuse":
        words = f"{shown} has the pixel mode {mode}, more than 8 bits for each value"
        raise BrokenImageError(words, "Convert it, or set the option sixteen_bit to `scale`.")
    if frames > 1 and not mpo:
        altered.add("first_frame")
    if turn > 1:
        altered.add("exif_rotated" if options.exif == "apply" else "exif_ignored")
    if mode == "CMYK":
        altered.add("cmyk_converted")
    size = (width, height) if turn in SIDEWAYS and options.exif == "apply" else (height, width)
    return ImageFile(path, label, size, mode in GREY, altered)


def decode(archive: Archive, image: ImageFile, shape: tuple[int, int, int], options: Options) -> Tensor:
    """Pixels (C, H, W) uint8 of one image; adds to `image.altered` what only the pixels tell.

    Raises:
        BrokenImageError: it cannot be read.
    """
    import numpy as np
    from PIL import Image, ImageOps

    channels, height, width = shape
    with quietly(), opened(archive.read(image.path), image.path) as file:
        converted = prepared(file, image, channels, options)
        if image.size != (height, width):
            converted = ImageOps.fit(converted, (width, height), Image.Resampling.BILINEAR)
        pixels = torch.from_numpy(np.array(converted))
    return pixels[None] if channels == 1 else pixels.permute(2, 0, 1)


def prepared(file: Any, image: ImageFile, channels: int, options: Options) -> Any:
    """The decoded image of an opened file: turned, in 8 bits, on a background, greyscale or RGB; adds to `image.altered` what only
    the pixels tell."""
    import numpy as np
    from PIL import Image, ImageOps

    file.load()
    turned = ImageOps.exif_transpose(file) if "exif_rotated" in image.altered else file
    if file.mode in DEEP:
        scaled = _eight_bits(np.asarray(turned), file.mode)
        turned = Image.fromarray(scaled)
        image.altered.update({"sixteen_bit_scaled"}, {"sixteen_bit_dark"} if scaled.max() <= DARK else ())
    elif turned.has_transparency_data and options.background != "drop":
        turned = _on_background(turned, options.background, image)
    return turned.convert("L" if channels == 1 else "RGB")


def orientation(image: Any) -> int:
    """The EXIF orientation of an opened image, 1 to 8; 1 if it has none."""
    try:
        found = image.getexif().get(ORIENTATION, 1)
    except (OSError, SyntaxError, ValueError, TypeError, LookupError, ArithmeticError, AttributeError):
        return 1
    return found if isinstance(found, int) and 1 <= found <= 8 else 1


def _eight_bits(value: Any, mode: str) -> Any:
    """Scale by the range of the type: 65535; floats up to 1 by 1, and up to 255 not at all."""
    import numpy as np

    low, high = float(value.min()), float(value.max())
    if not (low >= 0 and high <= 65535):
        raise ValueError(f"its values reach from {low:g} to {high:g}; scale them to 0 to 65535")
    most = 65535.0
    if mode == "F":
        most = 1.0 if high <= 1 else 255.0 if high <= 255 else 65535.0
    return np.rint(value.astype(np.float64) * (255.0 / most)).astype(np.uint8)


def _on_background(image: Any, colour: str, of: ImageFile) -> Any:
    """The image on a background, if a pixel is transparent."""
    from PIL import Image

    layer = image.convert("RGBA")
    if layer.getchannel("A").getextrema()[0] == 255:
        return image
    of.altered.add("transparency_removed")
    return Image.alpha_composite(Image.new("RGBA", layer.size, colour), layer).convert("RGB")


@contextmanager
def quietly() -> Iterator[None]:
    """A context in which Pillow's warnings of odd metadata are ignored, and images with very many pixels are refused. It changes
    the filters of all threads."""
    from PIL import Image

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        warnings.simplefilter("error", Image.DecompressionBombWarning)
        yield


def _unidentified(data: bytearray, path: PurePosixPath) -> str:
    """What is wrong with a file that Pillow does not know."""
    if not data:
        return "is empty"
    if data.startswith(TIFF):
        return "is a TIFF of a kind that is not read, such as one of more than four bands or of colours with 16 bits; save it in 8-bit RGB"
    if path.suffix.lower() in UNREAD:
        return f"is in a format that is not read ({path.suffix[1:].upper()}); convert it to PNG or JPEG"
    return f"is not an image ({', '.join(FORMATS)})"


@contextmanager
def opened(data: bytearray, path: PurePosixPath) -> Iterator[Any]:
    """Open an image and read its header; Pillow's errors become UploadErrors."""
    from PIL import Image, UnidentifiedImageError

    shown = repr(str(path)[:120])
    try:
        with Image.open(io.BytesIO(data), formats=FORMATS) as image:
            yield image
    except UnidentifiedImageError as error:
        raise BrokenImageError(f"{shown} {_unidentified(data, path)}", "Convert it, or remove it.") from error
    except (Image.DecompressionBombWarning, Image.DecompressionBombError) as error:
        raise UploadError(f"{shown} has too many pixels", "Scale it down.") from error
    except (OSError, SyntaxError, ValueError, EOFError, TypeError, LookupError, ArithmeticError, MemoryError) as error:
        raise BrokenImageError(f"{shown} is damaged: {str(error)[:200]}", "Replace it, or remove it.") from error
