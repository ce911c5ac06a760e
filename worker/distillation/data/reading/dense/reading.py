"""The dataset in an archive of images with masks or with depth.

Shapes: N samples, C channels, H height, W width. A size is (height, width).
"""

from collections import Counter
from collections.abc import Sequence
from pathlib import PurePosixPath
from typing import Any

import torch
from torch import Tensor

from worker.distillation.data import truth
from worker.distillation.data.fields import IGNORED, Size, kind_of, letterbox
from worker.distillation.data.packed import Options, Packed, check_size
from worker.distillation.data.reading.archives.archive import Archive
from worker.distillation.data.reading.decoding import (
    SIDEWAYS,
    BrokenImageError,
    ImageFile,
    decode,
    measure,
    opened,
    orientation,
    quietly,
    sorted_out,
)
from worker.distillation.data.reading.dense import pairs
from worker.distillation.data.reading.dense.depths import DepthReader
from worker.distillation.data.reading.dense.masks import MaskReader
from worker.distillation.data.reading.dense.pairs import Pairs
from worker.distillation.data.reading.image_set import Broken, common_shape, report_changes
from worker.distillation.data.reading.split_names import split_of
from worker.distillation.errors import UploadError
from worker.distillation.limits import UploadLimits

NEAR = 0.02
"""Largest relative difference of the aspect ratios of an image and its mask."""
Pair = tuple[ImageFile, PurePosixPath]


def read(archive: Archive, options: Options, limits: UploadLimits) -> Packed:
    """The dataset in an archive of images and masks (`labels` is `mask`) or depth (`depth`).

    Raises:
        UploadError: images and maps do not match, a file cannot be read, or it is not clear what the files mean.
    """
    files, others = sorted_out(archive)
    reader: MaskReader | DepthReader = DepthReader(options)
    if options.labels == "mask":
        reader = MaskReader.of(archive, others, options)
    if isinstance(reader, DepthReader):
        reader.check()
    found = pairs.find(files, _lists(archive, others))
    found.keep_two_splits("images with masks or depth", pairs.LAYOUT)
    broken = Broken(options.broken == "skip")
    measured = {split: _measured(archive, each, options, broken) for split, each in found.splits.items()}
    images = [image for each in measured.values() for image, _ in each]
    if not images:
        broken.check(0)
    shape = common_shape(images, options)
    check_size(len(images), shape, limits)
    packed = Packed(
        "images and masks" if options.labels == "mask" else "images and depth", {}, (), labels=options.labels
    )
    for split in sorted(measured, reverse=True):
        packed.splits[split] = _decoded(archive, measured[split], shape, options, reader, broken)
    broken.check(sum(len(image) for image, _ in packed.splits.values()))
    _finish(packed, reader, limits)
    _tell(packed, found, images, shape, options, broken)
    return packed


def _lists(archive: Archive, others: Sequence[PurePosixPath]) -> dict[str, frozenset[str]] | None:
    """The names of each split's files in the lists of VOC, `ImageSets/Segmentation/train.txt`."""
    lists = {}
    for path in others:
        split = split_of(path.stem)
        if path.suffix == ".txt" and split and "imagesets" in map(str.lower, path.parts):
            lines = bytes(archive.read(path)).decode("utf-8", "replace").split()
            lists[split] = frozenset(PurePosixPath(line).stem for line in lines)
    return lists or None


def _measured(
    archive: Archive, each: Sequence[tuple[PurePosixPath, PurePosixPath]], options: Options, broken: Broken
) -> list[Pair]:
    found = []
    for path, map_ in each:
        try:
            found.append((measure(archive, path, None, options), map_))
        except BrokenImageError as error:
            broken.found.append(error)
    return found


def _decoded(
    archive: Archive,
    each: Sequence[Pair],
    shape: tuple[int, int, int],
    options: Options,
    reader: MaskReader | DepthReader,
    broken: Broken,
) -> tuple[Tensor, Tensor]:
    """Pixels (N, C, H, W) and maps (N, H, W) of the pairs that can be decoded."""
    pixels = torch.empty((len(each), *shape), dtype=torch.uint8)
    maps = torch.empty((len(each), *shape[1:]), dtype=torch.float32 if options.labels == "depth" else torch.int32)
    kept = 0
    for image, path in each:
        try:
            maps[kept] = torch.from_numpy(_map(archive, image, path, shape[1:], options, reader))
            pixels[kept] = _pixels(archive, image, shape, options)
            kept += 1
        except BrokenImageError as error:
            broken.found.append(error)
    return pixels[:kept], maps[:kept]


def _pixels(archive: Archive, image: ImageFile, shape: tuple[int, int, int], options: Options) -> Tensor:
    """One image, cropped to the common size or put into it whole."""
    if options.fitting == "crop" or image.size == shape[1:]:
        return decode(archive, image, shape, options)
    top, left, height, width = letterbox(image.size, shape[1:])
    inner = decode(archive, image, (shape[0], height, width), options)
    whole = torch.zeros(shape, dtype=torch.uint8)
    whole[:, top : top + height, left : left + width] = inner
    return whole


def _map(
    archive: Archive,
    image: ImageFile,
    path: PurePosixPath,
    size: Size,
    options: Options,
    reader: MaskReader | DepthReader,
) -> Any:
    """One map (H, W), moved as its image; the nearest value is taken."""
    import numpy as np
    from PIL import Image, ImageOps

    with quietly(), opened(archive.read(path), path) as file:
        file.load()
        turn = orientation(file)
        turned = ImageOps.exif_transpose(file) if options.exif == "apply" and turn > 1 else file
        value = reader.index(turned, path) if isinstance(reader, MaskReader) else reader.metres(turned, path)
    _check_alike(image, path, value.shape, turn, options)
    if value.shape == size:
        return value.astype(np.float32 if options.labels == "depth" else np.int32)
    held = Image.fromarray(value.astype(np.float32 if options.labels == "depth" else np.int32))
    if options.fitting == "crop":
        return np.array(ImageOps.fit(held, (size[1], size[0]), Image.Resampling.NEAREST))
    top, left, height, width = letterbox(image.size, size)
    inner = torch.from_numpy(np.array(held.resize((width, height), Image.Resampling.NEAREST)))
    return kind_of(options.labels).pad(inner[None], top, left, (height, width), size)[0].numpy()


def _check_alike(image: ImageFile, path: PurePosixPath, size: Size, turn: int, options: Options) -> None:
    """Refuse a map of another shape than its image: it would be moved differently."""
    if abs(size[0] * image.size[1] / (size[1] * image.size[0]) - 1) <= NEAR:
        return
    shown = (
        f"{str(image.path)[:80]!r} is {image.size[0]}x{image.size[1]}, but {str(path)[:80]!r} is {size[0]}x{size[1]}"
    )
    turned = size == image.size[::-1] and (image.altered & {"exif_ignored", "exif_rotated"} or turn in SIDEWAYS)
    if turned and options.exif == "ignore":
        raise UploadError(f"{shown}: the image is turned by its EXIF data", "Set the option exif to `apply`.")
    if turned:
        raise UploadError(
            f"{shown}: it was drawn on the image before EXIF turned it", "Set the option exif to `ignore`."
        )
    raise UploadError(f"{shown}", "Send masks and depth of the size of their images.")


def _finish(packed: Packed, reader: MaskReader | DepthReader, limits: UploadLimits) -> None:
    """Turn numbers into classes, and name them."""
    if isinstance(reader, DepthReader):
        packed.class_names = ("depth",)
    else:
        found = sorted({int(value) for _, index in packed.splits.values() for value in index.unique()})
        packed.splits = {
            split: (image, reader.classes_of(index, found)) for split, (image, index) in packed.splits.items()
        }
        classes = truth.check(packed.splits, "mask", limits, len(reader.names) or len(reader.colours) or None)
        packed.class_names = reader.names or tuple(map(str, range(classes)))
    truth.check(packed.splits, packed.labels, limits, len(packed.class_names))
    packed.warnings += reader.notes
    packed.found["maps"] = {"files": dict(reader.kinds), "ignored": IGNORED if packed.labels == "mask" else 0}


def _tell(
    packed: Packed,
    found: Pairs,
    images: Sequence[ImageFile],
    shape: tuple[int, int, int],
    options: Options,
    broken: Broken,
) -> None:
    """Count and say what was changed and left out."""
    packed.left_out = dict(found.left_out)
    packed.warnings += found.notes
    how = "shorter side scaled, centre cropped" if options.fitting == "crop" else "longer side scaled, padded"
    count = Counter(name for image in images for name in image.altered)
    count["resized"] = sum(image.size != shape[1:] for image in images)
    words = {"resized": f"resized {{images}} to {shape[1]}x{shape[2]}, with masks or depth ({how})"}
    report_changes(packed, images, count, words, shape[0], options, broken)
