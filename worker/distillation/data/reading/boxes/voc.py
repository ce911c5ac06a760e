"""Pascal VOC: an XML file for each image, and lists of images in `ImageSets`."""

from collections.abc import Sequence
from pathlib import PurePosixPath

from worker.distillation.data.reading.archives.archive import Archive
from worker.distillation.data.reading.boxes import xml
from worker.distillation.data.reading.boxes.annotations import (
    Annotated,
    Annotations,
    Box,
    Corners,
    check_count,
    number,
    parts_of,
    split_in,
    without_background,
)
from worker.distillation.data.reading.split_names import split_of
from worker.distillation.errors import UploadError

LIST_BYTES = 16 * 2**20
SIDES = ("xmin", "ymin", "xmax", "ymax")


def find(archive: Archive, images: Sequence[PurePosixPath], others: Sequence[PurePosixPath]) -> Annotations | None:
    """The boxes of the archive's XML files; None if none belongs to an image.

    Pascal VOC counts pixels from 1, and both ends are in the box: 1 is subtracted from `xmin` and `ymin`. If any of these is 0, the
    files count from 0, and nothing is subtracted.

    Raises:
        UploadError: a file is damaged, or what it says contradicts itself.
    """
    files = {path.stem: path for path in others if path.suffix.lower() == ".xml"}
    stems = {path.stem: path for path in images}
    shared = sorted(files.keys() & stems.keys())
    if not shared:
        return None
    found = Annotations({}, "voc")
    named: dict[str, list[tuple[str, Corners]]] = {}
    sizes: dict[str, tuple[int, int] | None] = {}
    for stem in shared:
        sizes[stem], named[stem] = _read(archive, files[stem], found)
    starts = [value for boxes in named.values() for _, corners in boxes for value in corners[:2]]
    offset = 0.0 if starts and min(starts) < 1 else 1.0
    if starts and not offset:
        found.notes.append("boxes begin at pixel 0, so the files count from 0; Pascal VOC counts from 1")
    names = sorted({name for boxes in named.values() for name, _ in boxes})
    kept, _, notes = without_background(names, {names.index(name) for each in named.values() for name, _ in each})
    found.classes, found.notes = tuple(kept), [*found.notes, *notes]
    splits = _splits(archive, others, shared, stems)
    for split, members in splits.items():
        found.splits[split] = [
            Annotated(stems[stem], [_box(kept.index(name), each, offset) for name, each in named[stem]], sizes[stem])
            for stem in members
        ]
    found.count("without_boxes_file", len(stems) - sum(map(len, splits.values())))
    found.splits = parts_of(found.splits)
    return found


def _box(label: int, corners: Corners, offset: float) -> Box:
    x1, y1, x2, y2 = corners
    if x1 == x2 or y1 == y2:  # as written, so that a box of one number is not taken for one of a pixel
        return Box((x1, y1, x1, y1), label)
    low_x, high_x, low_y, high_y = min(x1, x2), max(x1, x2), min(y1, y2), max(y1, y2)
    swapped = (low_x, low_y) != (x1, y1)
    moved = (low_x - offset, low_y - offset, high_x, high_y)
    return Box((moved[2], moved[3], moved[0], moved[1]) if swapped else moved, label)


def _read(
    archive: Archive, path: PurePosixPath, found: Annotations
) -> tuple[tuple[int, int] | None, list[tuple[str, Corners]]]:
    """The size that a file states, and its objects: name and corners."""
    where = repr(str(path)[:120])
    root = xml.parse(bytes(archive.read(path, xml.MOST_BYTES)), where)
    if root.name != "annotation":
        raise UploadError(f"{where} is no annotation of Pascal VOC: its root is <{root.name[:40]}>", xml.WAY)
    boxes = []
    for each in root.all("object"):
        name, corners = each.said("name")[:200], each.find("bndbox")
        if not name or corners is None:
            raise UploadError(f"{where} has an object without <name> or <bndbox>", xml.WAY)
        x1, y1, x2, y2 = (number(corners.said(side), where, f"<{side}>") for side in SIDES)
        found.count("difficult", int(each.said("difficult") == "1"))
        boxes.append((name, (x1, y1, x2, y2)))
    check_count(len(boxes), where)
    return _size(root.find("size")), boxes


def _size(size: xml.Element | None) -> tuple[int, int] | None:
    """Height and width; None where they are missing or 0, as some tools write."""
    said = (size.said("height"), size.said("width")) if size is not None else ("", "")
    height, width = (int(text) if text.isdecimal() and len(text) < 6 else 0 for text in said)
    return (height, width) if height and width else None


def _splits(
    archive: Archive, others: Sequence[PurePosixPath], stems: Sequence[str], images: dict[str, PurePosixPath]
) -> dict[str, list[str]]:
    """The stems of each split: by the lists `train.txt`, `val.txt` and `test.txt`, else by the images' folders."""
    known = set(stems)
    lists = [path for path in others if path.suffix.lower() == ".txt" and split_of(path.stem)]
    found: dict[str, list[str]] = {}
    for path in lists:
        text = bytes(archive.read(path, LIST_BYTES)).decode("utf-8", "replace")
        named = [PurePosixPath(line.split()[0]).name for line in text.splitlines() if line.split()]
        members = [known & {name, PurePosixPath(name).stem} for name in named]
        chosen = {stem for each in members for stem in each}
        if chosen:
            found[str(split_of(path.stem))] = sorted(chosen)
    if found.get("train"):
        return found
    if found:
        listed = ", ".join(sorted(found))
        raise UploadError(
            f"there are lists of images for {listed}, but none for train", "Add ImageSets/Main/train.txt."
        )
    for stem in stems:
        found.setdefault(split_in(images[stem]) or "train", []).append(stem)
    return found
