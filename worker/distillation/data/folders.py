"""Datasets as a zip of class folders: `class/picture.png`, or `train/class/picture.png` beside `test/` or `val/`.

Pictures are decoded by Pillow, one format at a time from an allowed list and under a cap on pixels.
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
LAYOUT = "Put pictures into one folder for each class: class/picture.png, or train/class/picture.png and test/class/picture.png."


@dataclass(frozen=True)
class Picture:
    """One picture of the archive: where it is, and what its header says."""

    path: PurePosixPath
    label: str
    size: tuple[int, int]
    """Height and width."""
    grey: bool


def read(path: Path, options: Options, limits: UploadLimits) -> Packed:
    """The dataset in a zip of class folders; classes are in the order of their names as text.

    Raises:
        UploadError: the layout is another, or a picture cannot be read.
    """
    if options.labels != "class":
        raise UploadError("class folders name one class for each picture", "Send an npz file for other labels.")
    notes: list[str] = []
    with open_archive(path, limits) as archive:
        found = {
            split: [_measure(archive, file, label, limits) for file, label in files]
            for split, files in _layout(archive, notes).items()
        }
        pictures = [picture for each in found.values() for picture in each]
        names = sorted({picture.label for picture in pictures})
        shape = _shape(pictures, options, notes)
        check_size(len(pictures), shape, limits)
        splits = {split: _pack(archive, each, names, shape) for split, each in found.items()}
    truth.check(splits, "class", limits, len(names))
    if all(name.isdecimal() for name in names) and names != sorted(names, key=int):
        notes.append(
            "class folders with numbers as names are in the order of text (0, 1, 10, 2), as torchvision's ImageFolder has them"
        )
    return Packed("folders", splits, tuple(names), notes)


def _layout(archive: Archive, notes: list[str]) -> dict[str, list[tuple[PurePosixPath, str]]]:
    """Pictures and their class by split, in the order of their paths; a folder around everything is looked through."""
    pictures = sorted(file for file in archive.files if file.suffix.lower() in SUFFIXES)
    others = [file for file in archive.files if file.suffix.lower() not in SUFFIXES]
    if others:
        notes.append(
            f"{len(others)} files are no pictures and were left out ({', '.join(str(file)[:80] for file in others[:5])})"
        )
    if not pictures:
        raise UploadError("the archive holds no pictures (png, jpg, bmp, webp) and no NumPy arrays", LAYOUT)
    parts = [file.parts for file in pictures]
    if all(len(each) >= 3 and each[0] == parts[0][0] and each[0].lower() not in SPLITS for each in parts):
        parts = [each[1:] for each in parts]
    splits = [SPLITS.get(each[0].lower()) for each in parts]
    if all(split is not None and len(each) >= 3 for split, each in zip(splits, parts, strict=True)):
        parts = [each[1:] for each in parts]
    else:
        splits = ["train"] * len(parts)
    loose = next((file for file, each in zip(pictures, parts, strict=True) if len(each) < 2), None)
    if loose is not None:
        raise UploadError(f"{str(loose)[:120]!r} is in no class folder", LAYOUT)
    found: dict[str, list[tuple[PurePosixPath, str]]] = {}
    for file, split, each in zip(pictures, splits, parts, strict=True):
        found.setdefault(str(split), []).append((file, each[0]))
    return _two_splits(found, notes)


def _two_splits(found: dict[str, list[Any]], notes: list[str]) -> dict[str, list[Any]]:
    """`train` and, where there is one, `test`; `val` stands in for a `test` that is not there."""
    if "train" not in found:
        raise UploadError("the archive has no training pictures", LAYOUT)
    if "val" in found and "test" in found:
        notes.append(
            f"the {len(found.pop('val'))} pictures in the validation folder were left out, since there is a test folder"
        )
    elif "val" in found:
        found["test"] = found.pop("val")
        notes.append("the validation folder is the split `test`")
    return found


@contextmanager
def _opened(archive: Archive, path: PurePosixPath) -> Iterator[Any]:
    """A picture whose header has been read; what Pillow says against it becomes an UploadError."""
    from PIL import Image, UnidentifiedImageError

    shown = repr(str(path)[:120])
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            with Image.open(io.BytesIO(archive.read(path)), formats=FORMATS) as picture:
                yield picture
    except UnidentifiedImageError as error:
        raise UploadError(f"{shown} is not a {', '.join(FORMATS)} picture", "Convert it, or leave it out.") from error
    except (Image.DecompressionBombWarning, Image.DecompressionBombError) as error:
        raise UploadError(f"{shown} has too many pixels", "Scale it down.") from error
    except (OSError, SyntaxError, ValueError, EOFError, TypeError, LookupError, ArithmeticError, MemoryError) as error:
        raise UploadError(f"{shown} is damaged: {str(error)[:200]}", "Replace it, or leave it out.") from error


def _measure(archive: Archive, path: PurePosixPath, label: str, limits: UploadLimits) -> Picture:
    shown = repr(str(path)[:120])
    with _opened(archive, path) as picture:
        width, height = picture.size
        mode, frames = picture.mode, getattr(picture, "n_frames", 1)
    if not 0 < width * height <= limits.pixels:
        raise UploadError(f"{shown} has {width * height} pixels; at most {limits.pixels} are read", "Scale it down.")
    if frames != 1:
        raise UploadError(f"{shown} is an animation", "Send single pictures.")
    if mode not in GREY | COLOUR:
        raise UploadError(
            f"{shown} has pixels of the kind {mode}, which is not read", "Convert it to 8 bits, grey or RGB."
        )
    return Picture(path, label, (height, width), mode in GREY)


def _shape(pictures: Sequence[Picture], options: Options, notes: list[str]) -> tuple[int, int, int]:
    """Channels, height and width of the packed images: as asked, else grey if all are, and the commonest size."""
    sizes = Counter(picture.size for picture in pictures)
    commonest = max(sizes, key=lambda size: (sizes[size], size))
    height, width = options.height or commonest[0], options.width or commonest[1]
    moved = sum(count for size, count in sizes.items() if size != (height, width))
    if moved:
        notes.append(
            f"{moved} of {len(pictures)} pictures were brought to {height}x{width} (shorter side scaled, centre cropped)"
        )
    channels = options.channels or (1 if all(picture.grey for picture in pictures) else 3)
    turned = sum(picture.grey != (channels == 1) for picture in pictures)
    if turned:
        notes.append(f"{turned} of {len(pictures)} pictures were turned into {'grey' if channels == 1 else 'RGB'}")
    return channels, height, width


def _pack(
    archive: Archive, pictures: Sequence[Picture], names: Sequence[str], shape: tuple[int, int, int]
) -> tuple[Tensor, Tensor]:
    number = {name: position for position, name in enumerate(names)}
    image = torch.empty((len(pictures), *shape), dtype=torch.uint8)
    for target, picture in zip(image, pictures, strict=True):
        target.copy_(_decode(archive, picture, shape))
    return image, torch.tensor([number[picture.label] for picture in pictures], dtype=torch.int64)


def _decode(archive: Archive, picture: Picture, shape: tuple[int, int, int]) -> Tensor:
    """Bytes (C, H, W) of one picture."""
    import numpy as np
    from PIL import Image, ImageOps

    channels, height, width = shape
    with _opened(archive, picture.path) as opened:
        converted = opened.convert("L" if channels == 1 else "RGB")
        if picture.size != (height, width):
            converted = ImageOps.fit(converted, (width, height), Image.Resampling.BILINEAR)
        pixels = torch.from_numpy(np.array(converted))
    return pixels[None] if channels == 1 else pixels.permute(2, 0, 1)
