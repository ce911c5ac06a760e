"""The images of a dataset of boxes, decoded, and its boxes, moved with them.

Shapes: N samples, M boxes (padded), C channels, H height, W width. A size is (height, width).
"""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from worker.distillation.data.fields import NO_BOX, Size, covered, letterbox, letterboxed
from worker.distillation.data.packed import Options, Packed, check_size
from worker.distillation.data.reading.archives.archive import Archive
from worker.distillation.data.reading.boxes.annotations import REPAIRS, Annotated, Annotations, Box, repaired
from worker.distillation.data.reading.decoding import BrokenImageError, ImageFile, decode, measure
from worker.distillation.data.reading.image_set import Broken, common_shape, report_changes
from worker.distillation.errors import UploadError
from worker.distillation.limits import UploadLimits
from worker.distillation.wording import counted

NEAR = 0.01
"""Largest relative difference of the aspect ratios of an image and the size that its boxes are written for."""
EXIF = ("exif_rotated", "exif_ignored")


@dataclass
class Placed:
    """An image file with its boxes in pixels of the image as it is decoded."""

    image: ImageFile
    boxes: list[Box]


def read_boxed(archive: Archive, found: Annotations, options: Options, limits: UploadLimits) -> Packed:
    """Decode all images of the splits `train` and, perhaps, `test`.

    Raises:
        UploadError: an image cannot be read, or is not the one that its boxes are written for.
    """
    broken = Broken(options.broken == "skip")
    placed = {
        split: _placed(archive, images, options, found, broken)
        for split, images in sorted(found.splits.items(), reverse=True)
    }
    every = [each.image for images in placed.values() for each in images]
    if not every:
        broken.check(0)
    shape = common_shape(every, options)
    check_size(len(every), shape, limits)
    packed = Packed(found.kind, {}, found.classes, list(found.notes), labels="boxes")
    for split, images in placed.items():
        _decoded(packed, split, archive, images, shape, options, broken)
    broken.check(sum(len(image) for image, _ in packed.splits.values()))
    packed.found["boxes"] = _findings(packed, found)
    _tell(packed, found, every, shape, options, broken)
    return packed


def _placed(
    archive: Archive, images: Sequence[Annotated], options: Options, found: Annotations, broken: Broken
) -> list[Placed]:
    placed = []
    for each in images:
        try:
            placed.append(_place(archive, each, options, found))
        except BrokenImageError as error:
            broken.found.append(error)
    return placed


def _place(archive: Archive, each: Annotated, options: Options, found: Annotations) -> Placed:
    """The image and its boxes, repaired, in pixels of the image as it is decoded.

    Boxes are written for the image as it is stored, or for the image that EXIF turns: the size in the file of boxes says which. If it
    says none, the image is turned, as viewers and labelling tools show it.
    """
    turned = measure(archive, each.path, None, replace(options, exif="apply"))
    image = turned
    if "exif_rotated" in turned.altered:
        stored = measure(archive, each.path, None, replace(options, exif="ignore"))
        as_stored = each.size is not None and _alike(each.size, stored.size) and not _alike(each.size, turned.size)
        square = each.size is not None and _alike(stored.size, turned.size)
        image = stored if as_stored or (square and options.exif == "ignore") else turned
        found.count("not_turned" if image is stored else "turned")
        image.altered.discard("exif_ignored")
    across, down = _factors(each, image, found)
    boxes = []
    for box in each.boxes:
        x1, y1, x2, y2 = box.corners
        scaled = Box((x1 * across, y1 * down, x2 * across, y2 * down), box.label, box.crowd)
        if (kept := repaired(scaled, image.size, found)) is not None:
            boxes.append(kept)
    found.count("images_without_boxes", int(not boxes))
    return Placed(image, boxes)


def _factors(each: Annotated, image: ImageFile, found: Annotations) -> tuple[float, float]:
    """What to multiply x and y of the boxes with."""
    if each.relative:
        return float(image.size[1]), float(image.size[0])
    if each.size is None or each.size == image.size:
        return 1.0, 1.0
    if not _alike(each.size, image.size):
        sizes = [f"{height}x{width}" for height, width in (image.size, each.size)]
        words = f"{str(each.path)[:120]!r} is {sizes[0]} pixels, but its boxes are written for {sizes[1]}"
        raise UploadError(words, "Send the images that were labelled, or correct the size in the file of boxes.")
    found.count("scaled")
    return image.size[1] / each.size[1], image.size[0] / each.size[0]


def _alike(one: Size, two: Size) -> bool:
    return abs(one[0] * two[1] / (one[1] * two[0]) - 1) <= NEAR


def _decoded(
    packed: Packed,
    split: str,
    archive: Archive,
    images: Sequence[Placed],
    shape: tuple[int, int, int],
    options: Options,
    broken: Broken,
) -> None:
    """Add a split: pixels (N, C, H, W), `boxes` (N, M, 4), and the fields `box_label` and `crowd` (N, M)."""
    pixels = torch.empty((len(images), *shape), dtype=torch.uint8)
    rows: list[dict[str, Tensor]] = []
    for each in images:
        try:
            pixels[len(rows)] = _pixels(archive, each.image, shape, options)
        except BrokenImageError as error:
            broken.found.append(error)
            continue
        rows.append(_moved(_fields(each.boxes), each.image.size, shape[1:], options))
    most = max((len(row["boxes"][0]) for row in rows), default=0)
    fields = {name: torch.cat([_wide(row[name], most, value) for row in rows]) for name, value in PADDING.items()}
    packed.splits[split] = (pixels[: len(rows)], fields.pop("boxes"))
    packed.fields[split] = fields


PADDING: dict[str, int] = {"boxes": 0, "box_label": NO_BOX, "crowd": 0}


def _fields(boxes: Sequence[Box]) -> dict[str, Tensor]:
    """The fields of one image, as a batch of one."""
    corners = torch.tensor([box.corners for box in boxes], dtype=torch.float32).view(1, -1, 4)
    label = torch.tensor([box.label for box in boxes], dtype=torch.int64)[None]
    return {
        "boxes": corners,
        "box_label": label,
        "crowd": torch.tensor([box.crowd for box in boxes], dtype=torch.uint8)[None],
    }


def _moved(fields: dict[str, Tensor], size: Size, wanted: Size, options: Options) -> dict[str, Tensor]:
    """The fields, moved as their image is, without the boxes that are lost by it."""
    if size != wanted:
        fields = (covered if options.fitting == "crop" else letterboxed)(fields, size, wanted)
    kept = fields["box_label"][0] != NO_BOX
    return {name: value[:, kept] for name, value in fields.items()}


def _wide(value: Tensor, most: int, padding: int) -> Tensor:
    """A field (1, m, ...), padded to (1, `most`, ...)."""
    whole = value.new_full((1, most, *value.shape[2:]), padding)
    whole[:, : value.shape[1]] = value
    return whole


def _pixels(archive: Archive, image: ImageFile, shape: tuple[int, int, int], options: Options) -> Tensor:
    """One image, cropped to the common size or put into it whole."""
    if options.fitting == "crop" or image.size == shape[1:]:
        return decode(archive, image, shape, options)
    top, left, height, width = letterbox(image.size, shape[1:])
    whole = torch.zeros(shape, dtype=torch.uint8)
    whole[:, top : top + height, left : left + width] = decode(archive, image, (shape[0], height, width), options)
    return whole


def _findings(packed: Packed, found: Annotations) -> dict[str, object]:
    """What the dataset's page shows: numbers of boxes by split and class, and what was repaired."""
    return {
        "format": found.kind,
        "count": {split: int((fields["box_label"] >= 0).sum()) for split, fields in packed.fields.items()},
        "most_in_an_image": max(boxes.shape[1] for _, boxes in packed.splits.values()),
        "class_ids": found.class_ids or None,
        "repaired": dict(found.counts),
    }


def _tell(
    packed: Packed,
    found: Annotations,
    images: Sequence[ImageFile],
    shape: tuple[int, int, int],
    options: Options,
    broken: Broken,
) -> None:
    """Count and say what was changed and left out."""
    packed.warnings += [counted(number, REPAIRS[what]) for what, number in found.counts.items() if what in REPAIRS]
    how = "shorter side scaled, centre cropped" if options.fitting == "crop" else "longer side scaled, padded"
    count = Counter(name for image in images for name in image.altered if name not in EXIF)
    count["resized"] = sum(image.size != shape[1:] for image in images)
    words = {"resized": f"resized {{images}} to {shape[1]}x{shape[2]}, with boxes ({how})"}
    report_changes(packed, images, count, words, shape[0], options, broken)
