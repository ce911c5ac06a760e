"""COCO: a JSON file for each split, with `images`, `annotations` and `categories`."""

import json
from collections.abc import Mapping, Sequence
from pathlib import PurePosixPath
from typing import Any

from worker.distillation.data.reading.archives.archive import Archive
from worker.distillation.data.reading.boxes.annotations import (
    Annotated,
    Annotations,
    Box,
    check_count,
    number,
    parts_of,
    split_in,
    without_background,
)
from worker.distillation.errors import UploadError
from worker.distillation.wording import counted

MOST_BYTES = 64 * 2**20
"""Of all JSON files together: Python's objects take many times as much memory."""
KEYS = (b'"images"', b'"annotations"', b'"categories"', b'"bbox"')
HEAD = b"{["
LISTED = 20


def find(archive: Archive, images: Sequence[PurePosixPath], others: Sequence[PurePosixPath]) -> Annotations | None:
    """The boxes of the archive's COCO files; None if there are none.

    Raises:
        UploadError: a file is damaged or too large, or what it says contradicts itself.
    """
    files = [path for path in others if path.suffix.lower() == ".json" and is_coco(archive, path)]
    if not files:
        return None
    total = sum(archive.files[path] for path in files)
    if total > MOST_BYTES:
        raise UploadError(f"the COCO files have {total} bytes; the maximum is {MOST_BYTES}", "Leave the polygons out.")
    read = {path: _read(archive, path) for path in files}
    categories = _categories(read)
    found = Annotations({}, "coco")
    names = list(categories.values())
    numbers: dict[int | None, int] = {identifier: place for place, identifier in enumerate(categories)}
    used: set[int] = set()
    for path, content in read.items():
        split = split_in(path) or ("train" if len(read) == 1 else None)
        if split is None:
            raise UploadError(
                f"{str(path)[:120]!r} does not say its split", "Name the files train.json, val.json, test.json."
            )
        rows = _images(path, content, images, numbers, found)
        used |= {box.label for row in rows for box in row.boxes}
        found.splits.setdefault(split, []).extend(rows)
    kept, new, notes = without_background(names, used)
    for row in (row for rows in found.splits.values() for row in rows):
        row.boxes = [Box(box.corners, new[box.label], box.crowd) for box in row.boxes]
    found.classes = tuple(kept)
    _say_numbers(found, [identifier for identifier in categories if numbers[identifier] in new], notes)
    found.splits = parts_of(found.splits)
    return found


def is_coco(archive: Archive, path: PurePosixPath) -> bool:
    """Whether a JSON file lists images, annotations, categories and boxes."""
    if not 0 < archive.files[path] <= MOST_BYTES:
        return False
    data = archive.read(path)
    return all(key in data for key in KEYS)


def _read(archive: Archive, path: PurePosixPath) -> Mapping[str, Any]:
    where = repr(str(path)[:120])
    try:
        content = json.loads(bytes(archive.read(path)))
    except (ValueError, RecursionError) as error:
        raise UploadError(f"{where} is not JSON: {str(error)[:120]}", "Write the file again.") from error
    if not isinstance(content, dict) or not all(
        isinstance(content.get(name), list) and all(isinstance(each, dict) for each in content[name])
        for name in ("images", "annotations", "categories")
    ):
        raise UploadError(f"{where} has no lists `images`, `annotations` and `categories`", "Write it as COCO has it.")
    return content


def _categories(read: Mapping[PurePosixPath, Mapping[str, Any]]) -> dict[int, str]:
    """The name of each category by its number, in ascending order; equal in all files."""
    found: dict[int, str] = {}
    for path, content in read.items():
        for each in content["categories"]:
            identifier, name = _whole(each.get("id")), str(each.get("name", ""))[:200]
            if identifier is None or not name:
                raise UploadError(f"{str(path)[:120]!r} has a category without `id` or `name`", "Give it both.")
            if found.setdefault(identifier, name) != name:
                words = f"the category {identifier} is {found[identifier]!r} in one file and {name!r} in another"
                raise UploadError(words, "Use the same categories in all files.")
    if len(set(found.values())) < len(found):
        raise UploadError("two categories have the same name", "Give each its own name.")
    return dict(sorted(found.items()))


def _whole(value: object) -> int | None:
    """The number of a category, also one that is written as text; None if it is none."""
    if isinstance(value, str) and value.strip().isdecimal() and len(value) < 10:
        return int(value)
    return value if isinstance(value, int) and not isinstance(value, bool) else None


def _images(
    path: PurePosixPath,
    content: Mapping[str, Any],
    images: Sequence[PurePosixPath],
    numbers: Mapping[int | None, int],
    found: Annotations,
) -> list[Annotated]:
    where = repr(str(path)[:120])
    near = _Near(images, path)
    rows: dict[Any, Annotated] = {}
    absent = []
    for each in content["images"]:
        name = str(each.get("file_name", ""))
        place = near.find(name)
        if place is None:
            absent.append(name)
            continue
        if each.get("id") in rows or not isinstance(each.get("id"), int | str):
            raise UploadError(f"{where} has two images of the id {str(each.get('id'))[:40]}", "Give each its own id.")
        rows[each["id"]] = Annotated(place, size=_size(each))
    if absent:
        listed = ", ".join(repr(name[:80]) for name in absent[:5])
        words = "{where} lists {n} image[s] that [is|are] not in the archive: {listed}"
        raise UploadError(counted(len(absent), words, where=where, listed=listed), "Send all images.")
    for each in content["annotations"]:
        _add(each, rows, numbers, where, found)
    return list(rows.values())


def _size(each: Mapping[str, Any]) -> tuple[int, int] | None:
    height, width = each.get("height"), each.get("width")
    if isinstance(height, int) and isinstance(width, int) and height > 0 and width > 0:
        return height, width
    return None


def _add(
    each: Mapping[str, Any],
    rows: Mapping[Any, Annotated],
    numbers: Mapping[int | None, int],
    where: str,
    found: Annotations,
) -> None:
    row, label, box = rows.get(each.get("image_id")), numbers.get(_whole(each.get("category_id"))), each.get("bbox")
    place = f"{where}, annotation {str(each.get('id'))[:40]}"
    if row is None:
        raise UploadError(f"{place} is of the image {str(each.get('image_id'))[:40]}, which is not listed", "List it.")
    if label is None:
        raise UploadError(
            f"{place} has the category {str(each.get('category_id'))[:40]}, which is not listed", "List it."
        )
    if not isinstance(box, list) or len(box) != 4:
        raise UploadError(f"{place} has no `bbox` of four numbers", "Write x, y, width and height.")
    x, y, width, height = (number(value, place, "a number of `bbox`") for value in box)
    crowd = bool(each.get("iscrowd"))
    found.count("crowds", int(crowd))
    row.boxes.append(Box((x, y, x + width, y + height), label, crowd))
    check_count(len(row.boxes), where)


class _Near:
    """Images by the name that a file gives them: the path from the file's folder, or any end of a path that one image alone has, in a
    folder of the file's split if several have it."""

    def __init__(self, images: Sequence[PurePosixPath], file: PurePosixPath):
        self.images = set(images)
        self.folder = file.parent
        self.split = split_in(file)
        self.by_name: dict[str, list[PurePosixPath]] = {}
        for path in images:
            self.by_name.setdefault(path.name, []).append(path)

    def find(self, name: str) -> PurePosixPath | None:
        parts = [part for part in name.replace("\\", "/").split("/") if part not in ("", ".", "..")]
        if not parts:
            return None
        direct = self.folder.joinpath(*parts)
        if direct in self.images:
            return direct
        ends = [path for path in self.by_name.get(parts[-1], ()) if path.parts[-len(parts) :] == tuple(parts)]
        ends = ends or self.by_name.get(parts[-1], [])
        own = [path for path in ends if split_in(path) == self.split] if len(ends) > 1 else ends
        if len(ends) > 1 and len(own) != 1:
            raise UploadError(
                f"several images are named {name[:120]!r}", "Give images their own names, or their whole path."
            )
        return own[0] if own else None


def _say_numbers(found: Annotations, identifiers: Sequence[int], notes: Sequence[str]) -> None:
    """Report the numbers of the categories where they are not 0 to K - 1."""
    found.notes += notes
    if list(identifiers) == list(range(len(identifiers))):
        return
    found.class_ids = dict(zip(found.classes, identifiers, strict=True))
    listed = ", ".join(f"{old} is {new}" for new, old in enumerate(identifiers[:LISTED]))
    more = f", and {len(identifiers) - LISTED} more" if len(identifiers) > LISTED else ""
    found.notes.append(f"categories are renumbered in the order of their ids: {listed}{more}")
