"""Datasets of boxes and masks, which are read only if the option labels says so, are recognised and named."""

import re
from collections.abc import Sequence
from itertools import islice
from pathlib import PurePosixPath

from worker.distillation.data.reading.archives.archive import Archive
from worker.distillation.data.reading.layout import INPUTS, MASKS, Layout
from worker.distillation.errors import UploadError

LOOKED_AT = 20
"""Files whose contents are read to recognise a format."""
COCO_BYTES = 64 * 2**20
TEXT_BYTES = 2**20
YOLO_LINE = re.compile(rb"\d+(?:[ \t]+-?\d*\.?\d+(?:e-?\d+)?){4,}[ \t\r]*")
MASK_END = re.compile(r"[-_. ]masks?(?:[-_ ]?\d+)?$", re.IGNORECASE)
HINT = "Set the option labels to `boxes`, for the task detection, or to `none` for its images alone."
MASK_HINT = "Set the option labels to `mask`, for the task segmentation, or to `depth`."


def refuse(archive: Archive, images: Sequence[PurePosixPath], others: Sequence[PurePosixPath]) -> None:
    """Refuse a dataset of boxes.

    Raises:
        UploadError: it is one; the message names its format.
    """
    stems = {path.stem for path in images}
    if any(_is_coco(archive, path) for path in _of(others, ".json", archive, COCO_BYTES) if path.stem not in stems):
        raise UploadError("the archive is a detection dataset in COCO format: a JSON file lists boxes", HINT)
    beside = [path for path in others if path.stem in stems]
    if any(_is_yolo(archive, path) for path in _of(beside, ".txt", archive, TEXT_BYTES)):
        raise UploadError("the archive is a detection dataset in YOLO format: text files list boxes", HINT)
    if any(_is_voc(archive, path) for path in _of(beside, ".xml", archive, TEXT_BYTES)):
        raise UploadError("the archive is a detection dataset in Pascal VOC format: XML files list boxes", HINT)


def refuse_masks(classes: Sequence[str]) -> None:
    """Refuse folders of images and of masks, which look like two classes.

    Raises:
        UploadError: they are.
    """
    names = {name.lower() for name in classes}
    if names & MASKS and names & INPUTS and names <= MASKS | INPUTS:
        raise UploadError(f"the archive is a segmentation dataset: its folders are {', '.join(classes)}", MASK_HINT)


def leave_out_masks(found: Layout) -> None:
    """Leave out the masks that lie beside images: `images/1.png` with `masks/1.png` in each class folder, `1.png` with `1_mask.png`."""
    every = [path for images in found.splits.values() for path, _ in images]
    places = {path.parent for path in every}
    beside = {folder for folder in places if folder.name.lower() in MASKS and _has_images(folder, places)}
    named = {path.with_suffix("") for path in every}

    def is_mask(path: PurePosixPath) -> bool:
        image, ends = MASK_END.subn("", path.stem)
        return path.parent in beside or bool(ends and image and path.with_name(image) in named)

    masks = {path for path in every if is_mask(path)}
    for split, images in found.splits.items():
        found.splits[split] = [(path, label) for path, label in images if path not in masks]
    words = "{n} mask[s] beside [its image|their images] [was|were] left out; for segmentation set the option labels to `mask`"
    found.leave_out("masks", len(masks), words)


def _has_images(folder: PurePosixPath, places: set[PurePosixPath]) -> bool:
    return any(place.parent == folder.parent and place.name.lower() in INPUTS for place in places)


def _of(paths: Sequence[PurePosixPath], suffix: str, archive: Archive, most: int) -> list[PurePosixPath]:
    chosen = (path for path in paths if path.suffix.lower() == suffix and 0 < archive.files[path] <= most)
    return list(islice(chosen, LOOKED_AT))


def _is_coco(archive: Archive, path: PurePosixPath) -> bool:
    data = archive.read(path)
    return all(key in data for key in (b'"images"', b'"annotations"', b'"categories"', b'"bbox"'))


def _is_yolo(archive: Archive, path: PurePosixPath) -> bool:
    lines = [line for line in bytes(archive.read(path)).split(b"\n") if line.strip()]
    return bool(lines) and all(YOLO_LINE.fullmatch(line) for line in lines)


def _is_voc(archive: Archive, path: PurePosixPath) -> bool:
    data = archive.read(path)
    return b"<annotation" in data and b"<bndbox" in data
