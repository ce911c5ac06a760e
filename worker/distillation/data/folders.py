"""Datasets as a zip of class folders: `class/image.png`, or `train/class/image.png` and the same in `test/` or `val/`.

Pillow decodes the images, restricted to a list of formats and a maximum number of pixels.
"""

import io
import warnings
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

import torch
from torch import Tensor

from worker.distillation.data import truth
from worker.distillation.data.archive import Archive, open_archive
from worker.distillation.data.packed import Options, Packed, check_size
from worker.distillation.errors import UploadError
from worker.distillation.limits import UploadLimits

SUFFIXES = {".png": "PNG", ".jpg": "JPEG", ".jpeg": "JPEG", ".bmp": "BMP", ".webp": "WEBP"}
FORMATS = tuple(dict.fromkeys(SUFFIXES.values()))
SPLITS = {
    "train": "train",
    "training": "train",
    "test": "test",
    "testing": "test",
    "val": "val",
    "valid": "val",
    "validation": "val",
}
GREY = frozenset({"1", "L", "LA"})
COLOUR = frozenset({"P", "PA", "RGB", "RGBA", "CMYK", "YCbCr"})
LAYOUT = (
    "Put images into one folder for each class: class/image.png, or train/class/image.png and test/class/image.png."
)


@dataclass(frozen=True)
class ImageFile:
    """An image file of the archive: its path, its class, and the size and mode from its header."""

    path: PurePosixPath
    label: str
    size: tuple[int, int]
    """Height and width."""
    grey: bool


def read(path: Path, options: Options, limits: UploadLimits) -> Packed:
    """The dataset in a zip of class folders; classes are sorted by name, as text.

    Raises:
        UploadError: the layout is different, or an image cannot be read.
    """
    if options.labels != "class":
        raise UploadError("class folders support one class per image only", "Send an npz file for other labels.")
    notes: list[str] = []
    with open_archive(path, limits) as archive:
        found = {
            split: [_measure(archive, file, label, limits) for file, label in files]
            for split, files in _layout(archive, notes).items()
        }
        images = [image for each in found.values() for image in each]
        names = sorted({image.label for image in images})
        shape = _shape(images, options, notes)
        check_size(len(images), shape, limits)
        splits = {split: _pack(archive, each, names, shape) for split, each in found.items()}
    truth.check(splits, "class", limits, len(names))
    if all(name.isdecimal() for name in names) and names != sorted(names, key=int):
        notes.append("class folders named by numbers are sorted as text (0, 1, 10, 2), as in torchvision's ImageFolder")
    return Packed("folders", splits, tuple(names), notes)


def _layout(archive: Archive, notes: list[str]) -> dict[str, list[tuple[PurePosixPath, str]]]:
    """Images and their classes by split, sorted by path; a top-level folder around everything is skipped."""
    images = sorted(file for file in archive.files if file.suffix.lower() in SUFFIXES)
    others = [file for file in archive.files if file.suffix.lower() not in SUFFIXES]
    if others:
        notes.append(
            f"{len(others)} files are not images and were ignored ({', '.join(str(file)[:80] for file in others[:5])})"
        )
    if not images:
        raise UploadError("the archive contains no images (png, jpg, bmp, webp) and no NumPy arrays", LAYOUT)
    parts = [file.parts for file in images]
    if all(len(each) >= 3 and each[0] == parts[0][0] and each[0].lower() not in SPLITS for each in parts):
        parts = [each[1:] for each in parts]
    splits = [SPLITS.get(each[0].lower()) for each in parts]
    if all(split is not None and len(each) >= 3 for split, each in zip(splits, parts, strict=True)):
        parts = [each[1:] for each in parts]
    else:
        splits = ["train"] * len(parts)
    outside = next((file for file, each in zip(images, parts, strict=True) if len(each) < 2), None)
    if outside is not None:
        raise UploadError(f"{str(outside)[:120]!r} is not in a class folder", LAYOUT)
    found: dict[str, list[tuple[PurePosixPath, str]]] = {}
    for file, split, each in zip(images, splits, parts, strict=True):
        found.setdefault(str(split), []).append((file, each[0]))
    return _two_splits(found, notes)


def _two_splits(found: dict[str, list[Any]], notes: list[str]) -> dict[str, list[Any]]:
    """`train` and, if there is one, `test`; without a `test` folder, `val` becomes `test`."""
    if "train" not in found:
        raise UploadError("the archive has no training images", LAYOUT)
    if "val" in found and "test" in found:
        notes.append(
            f"the {len(found.pop('val'))} images in the validation folder were ignored because there is a test folder"
        )
    elif "val" in found:
        found["test"] = found.pop("val")
        notes.append("the validation folder is used as the split `test`")
    return found


@contextmanager
def _opened(archive: Archive, path: PurePosixPath) -> Iterator[Any]:
    """Open an image and read its header; Pillow's errors become UploadErrors."""
    from PIL import Image, UnidentifiedImageError

    shown = repr(str(path)[:120])
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            with Image.open(io.BytesIO(archive.read(path)), formats=FORMATS) as image:
                yield image
    except UnidentifiedImageError as error:
        raise UploadError(f"{shown} is not a {', '.join(FORMATS)} image", "Convert it, or remove it.") from error
    except (Image.DecompressionBombWarning, Image.DecompressionBombError) as error:
        raise UploadError(f"{shown} has too many pixels", "Scale it down.") from error
    except (OSError, SyntaxError, ValueError, EOFError, TypeError, LookupError, ArithmeticError, MemoryError) as error:
        raise UploadError(f"{shown} is damaged: {str(error)[:200]}", "Replace it, or remove it.") from error


def _measure(archive: Archive, path: PurePosixPath, label: str, limits: UploadLimits) -> ImageFile:
    shown = repr(str(path)[:120])
    with _opened(archive, path) as image:
        width, height = image.size
        mode, frames = image.mode, getattr(image, "n_frames", 1)
    if not 0 < width * height <= limits.pixels:
        raise UploadError(f"{shown} has {width * height} pixels; the maximum is {limits.pixels}", "Scale it down.")
    if frames != 1:
        raise UploadError(f"{shown} is an animation", "Send images with a single frame.")
    if mode not in GREY | COLOUR:
        raise UploadError(f"{shown} has the unsupported pixel mode {mode}", "Convert it to 8-bit greyscale or RGB.")
    return ImageFile(path, label, (height, width), mode in GREY)


def _shape(images: Sequence[ImageFile], options: Options, notes: list[str]) -> tuple[int, int, int]:
    """Channels, height and width of the packed images: from the options, else greyscale if all images are, and the most
    common size."""
    sizes = Counter(image.size for image in images)
    most_common = max(sizes, key=lambda size: (sizes[size], size))
    height, width = options.height or most_common[0], options.width or most_common[1]
    resized = sum(count for size, count in sizes.items() if size != (height, width))
    if resized:
        notes.append(
            f"{resized} of {len(images)} images were resized to {height}x{width} (shorter side scaled, centre cropped)"
        )
    channels = options.channels or (1 if all(image.grey for image in images) else 3)
    converted = sum(image.grey != (channels == 1) for image in images)
    if converted:
        notes.append(f"{converted} of {len(images)} images were converted to {'greyscale' if channels == 1 else 'RGB'}")
    return channels, height, width


def _pack(
    archive: Archive, images: Sequence[ImageFile], names: Sequence[str], shape: tuple[int, int, int]
) -> tuple[Tensor, Tensor]:
    number = {name: position for position, name in enumerate(names)}
    packed = torch.empty((len(images), *shape), dtype=torch.uint8)
    for target, image in zip(packed, images, strict=True):
        target.copy_(_decode(archive, image, shape))
    return packed, torch.tensor([number[image.label] for image in images], dtype=torch.int64)


def _decode(archive: Archive, image: ImageFile, shape: tuple[int, int, int]) -> Tensor:
    """Pixels (C, H, W) uint8 of one image."""
    import numpy as np
    from PIL import Image, ImageOps

    channels, height, width = shape
    with _opened(archive, image.path) as opened:
        converted = opened.convert("L" if channels == 1 else "RGB")
        if image.size != (height, width):
            converted = ImageOps.fit(converted, (width, height), Image.Resampling.BILINEAR)
        pixels = torch.from_numpy(np.array(converted))
    return pixels[None] if channels == 1 else pixels.permute(2, 0, 1)
