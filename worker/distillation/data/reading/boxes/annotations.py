"""Boxes as they are written in files, and their repair.

Shapes: M boxes of an image.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import PurePosixPath

from worker.distillation.data.reading.found_images import FoundImages
from worker.distillation.data.reading.split_names import split_of
from worker.distillation.errors import UploadError

BACKGROUND = frozenset(["background", "__background__", "_background_", "bg"])
"""Names of the class that networks have beside those of the objects; a dataset has no boxes of it."""
MOST_BOXES = 10_000
"""Most boxes of an image."""
Corners = tuple[float, float, float, float]


@dataclass(frozen=True)
class Box:
    """One box as written: x1, y1, x2, y2 in pixels of the image, or as parts of its width and height if the format says so."""

    corners: Corners
    label: int
    crowd: bool = False


@dataclass
class Annotated:
    """An image and its boxes; `size` is the (height, width) that the file with the boxes states, None if it states none.

    `relative`: corners are parts of the image's width and height.
    """

    path: PurePosixPath
    boxes: list[Box] = field(default_factory=list)
    size: tuple[int, int] | None = None
    relative: bool = False


@dataclass
class Annotations(FoundImages[Annotated]):
    """All images of an archive with their boxes."""

    kind: str
    """Name of the format: `coco`, `voc` or `yolo`."""
    classes: tuple[str, ...] = ()
    class_ids: dict[str, int] = field(default_factory=dict)
    """The number of each class as the files write it, by its name, where it is not the one it gets."""
    counts: dict[str, int] = field(default_factory=dict)
    """Numbers of boxes and images by what was done to them."""

    def count(self, what: str, number: int = 1) -> None:
        if number:
            self.counts[what] = self.counts.get(what, 0) + number


REPAIRS = {
    "boxes_swapped": "{n} box[es] [has its|have their] corners in the wrong order, which were exchanged",
    "boxes_without_area": "{n} box[es] [has|have] no area and [was|were] left out",
    "boxes_repeated": "{n} box[es] [is a repetition|are repetitions] of another one of the same image and [was|were] left out",
    "boxes_outside": "{n} box[es] [lies|lie] outside of [its|their] image and [was|were] left out",
    "boxes_clipped": "{n} box[es] [reaches|reach] beyond [its|their] image and [was|were] clipped",
    "crowds": "{n} box[es] [is a crowd|are crowds] (iscrowd): training leaves [it|them] out, and evaluation ignores detections in [it|them]",
    "difficult": "{n} object[s] [is|are] marked as difficult; [it is|they are] kept like all others",
    "images_without_boxes": "{n} image[s] [has|have] no box; [it is kept as an image|they are kept as images] without objects",
    "scaled": "{n} image[s] [has|have] another size than [its|their] boxes are written for; the boxes were scaled",
    "turned": "{n} image[s] [was|were] turned by [its|their] EXIF orientation, as [its|their] boxes are written for the turned image",
    "not_turned": "{n} image[s] [has|have] an EXIF orientation that was ignored, as [its|their] boxes are written for the image as stored",
    "without_boxes_file": "{n} image[s] [is|are] in no file of boxes and [was|were] left out",
}
"""What was done, in words for `counted`."""


def repaired(box: Box, size: tuple[int, int], found: Annotations) -> Box | None:
    """A box in the order x1 < x2 and y1 < y2, clipped to an image of `size` (height, width); None if nothing remains of it."""
    x1, y1, x2, y2 = box.corners
    if x1 > x2 or y1 > y2:
        found.count("boxes_swapped")
        x1, x2, y1, y2 = min(x1, x2), max(x1, x2), min(y1, y2), max(y1, y2)
    if x1 == x2 or y1 == y2:
        found.count("boxes_without_area")
        return None
    height, width = size
    clipped = (max(x1, 0.0), max(y1, 0.0), min(x2, float(width)), min(y2, float(height)))
    if clipped[0] >= clipped[2] or clipped[1] >= clipped[3]:
        found.count("boxes_outside")
        return None
    if max(abs(one - two) for one, two in zip(clipped, (x1, y1, x2, y2), strict=True)) > 0.5:
        found.count("boxes_clipped")
    return Box(clipped, box.label, box.crowd)


def number(value: object, where: str, what: str) -> float:
    """A finite number from a file.

    Raises:
        UploadError: it is none.
    """
    try:
        found = float(value)  # type: ignore[arg-type]
    except (TypeError, ValueError):
        found = math.nan
    if isinstance(value, bool) or not math.isfinite(found) or abs(found) > 1e7:
        raise UploadError(f"{where}: {what} is {str(value)[:40]!r}, not a number of pixels", "Correct the file.")
    return found


def check_count(count: int, where: str) -> None:
    """Check the number of boxes of an image.

    Raises:
        UploadError: there are too many.
    """
    if count > MOST_BOXES:
        raise UploadError(f"{where} has {count} boxes; the maximum is {MOST_BOXES}", "Cut the image into parts.")


def without_background(names: Sequence[str], used: set[int]) -> tuple[list[str], dict[int, int], list[str]]:
    """The classes of objects, the new number of each old one, and a note: a class named background without boxes does not count.

    Raises:
        UploadError: it has boxes.
    """
    kept: list[str] = []
    numbers: dict[int, int] = {}
    notes: list[str] = []
    for old, name in enumerate(names):
        if name.strip().lower() in BACKGROUND:
            if old in used:
                raise UploadError(
                    f"there are boxes of the class {name!r}", "Leave them out: the background has no boxes."
                )
            notes.append(f"the class {name!r} has no boxes and is not counted: classes are those of objects")
            continue
        numbers[old] = len(kept)
        kept.append(name)
    return kept, numbers, notes


def split_in(path: PurePosixPath) -> str | None:
    """The split that a path's folders or file name say: `train/images/1.jpg`, `annotations/instances_val2017.json`."""
    for part in (*reversed(path.parts[:-1]), path.stem):
        words = [part, *part.replace("-", "_").replace(".", "_").split("_")]
        if found := next((split for word in words if (split := split_of(word))), None):
            return found
    return None


def parts_of(splits: Mapping[str, list[Annotated]]) -> dict[str, list[Annotated]]:
    """Splits with images, those of one image path only once."""
    found = {name: sorted(images, key=lambda each: str(each.path)) for name, images in splits.items() if images}
    seen: dict[PurePosixPath, str] = {}
    for name, images in found.items():
        for image in images:
            if seen.setdefault(image.path, name) != name:
                raise UploadError(
                    f"the image {str(image.path)[:120]!r} is in the splits {seen[image.path]} and {name}",
                    "List each image in one split.",
                )
    return found
