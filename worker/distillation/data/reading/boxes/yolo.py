"""YOLO: a text file for each image with a line `class x y width height` for each box, in parts of the image's size."""

import re
from collections.abc import Sequence
from pathlib import PurePosixPath

from worker.distillation.data.reading.archives.archive import Archive
from worker.distillation.data.reading.boxes.annotations import (
    Annotated,
    Annotations,
    Box,
    Corners,
    check_count,
    parts_of,
    split_in,
    without_background,
)
from worker.distillation.data.reading.split_names import split_of
from worker.distillation.errors import UploadError
from worker.distillation.wording import counted

FILE_BYTES = 2**20
NAMES_BYTES = 2**20
LINE = re.compile(r"\s*(\d{1,6})(?:\.0+)?((?:\s+[-+]?\d*\.?\d+(?:[eE][-+]?\d+)?)+)\s*")
NAME_FILES = ("classes.txt", "obj.names", "names.txt", "classes.names")
NOT_BOXES = frozenset(
    [*NAME_FILES, "readme.txt", "readme.roboflow.txt", "readme.dataset.txt", "train.txt", "val.txt", "test.txt"]
)
SLACK = 0.01
"""How far a number may be beyond 0 or 1 by rounding."""
WAY = "Write numbers from 0 to 1: the box's centre, width and height, divided by the image's width and height."


def find(archive: Archive, images: Sequence[PurePosixPath], others: Sequence[PurePosixPath]) -> Annotations | None:
    """The boxes of the archive's text files; None if none belongs to an image. A line of more numbers is a polygon, whose box counts.

    An image without a file has no objects.

    Raises:
        UploadError: a line is malformed, or a class has no name.
    """
    texts = {
        _key(path): path for path in others if path.suffix.lower() == ".txt" and path.name.lower() not in NOT_BOXES
    }
    pairs = {path: texts.get(_key(path)) for path in images}
    if not any(pairs.values()):
        return None
    found = Annotations({}, "yolo")
    yaml = _yaml(archive, others)
    points = any(re.search(r"^kpt_shape\s*:", text, re.MULTILINE) for text in yaml)
    rows = {path: _read(archive, file, points) if file else [] for path, file in pairs.items()}
    used = {box.label for boxes in rows.values() for box in boxes}
    names = _names(archive, others, yaml) or [str(each) for each in range(max(used, default=-1) + 1)]
    _check_numbers(used, names)
    kept, new, notes = without_background(names, used)
    found.classes, found.notes = tuple(kept), notes
    if len(kept) < len(names):
        found.class_ids = {name: names.index(name) for name in kept}
    listed = _lists(archive, others)
    for path, boxes in rows.items():
        moved = [Box(box.corners, new[box.label]) for box in dict.fromkeys(boxes)]
        found.count("boxes_repeated", len(boxes) - len(moved))
        split = split_in(path) or listed.get(path.name) or "train"
        found.splits.setdefault(split, []).append(Annotated(path, moved, relative=True))
    found.splits = parts_of(found.splits)
    return found


def _key(path: PurePosixPath) -> tuple[str, ...]:
    """What an image and its file of boxes have in common: the path without the folders `images` and `labels`, and the stem."""
    folders = tuple(part for part in path.parts[:-1] if part.lower() not in ("images", "labels"))
    return (*folders, path.stem)


def _lists(archive: Archive, others: Sequence[PurePosixPath]) -> dict[str, str]:
    """The split of images by their names, from lists such as `val.txt` that `data.yaml` names."""
    found: dict[str, str] = {}
    for path in others:
        split = split_of(path.stem)
        if path.name.lower() in NOT_BOXES and split and archive.files[path] <= NAMES_BYTES:
            text = bytes(archive.read(path)).decode("utf-8", "replace").replace("\\", "/")
            found |= {line.strip().rsplit("/", 1)[-1]: split for line in text.splitlines() if line.strip()}
    return found


def _read(archive: Archive, path: PurePosixPath, points: bool) -> list[Box]:
    """The boxes of a file. `points`: each is followed by key points, which are not read."""
    text = bytes(archive.read(path, FILE_BYTES)).decode("utf-8", "replace")
    boxes = []
    for count, line in enumerate(text.splitlines(), 1):
        if not line.strip():
            continue
        where = f"line {count} of {str(path)[:120]!r}"
        match = LINE.fullmatch(line)
        values = [float(each) for each in match.group(2).split()] if match else []
        values = values[:4] if points else values
        if match is None or len(values) < 4 or (len(values) > 5 and len(values) % 2):
            raise UploadError(f"{where} is {line[:60]!r}, which is no box: class, x, y, width, height", WAY)
        boxes.append(Box(_corners(values, where), int(match.group(1))))
    check_count(len(boxes), repr(str(path)[:120]))
    return boxes


def _corners(values: Sequence[float], where: str) -> Corners:
    if any(not -SLACK <= value <= 1 + SLACK for value in values):
        raise UploadError(f"{where} has numbers that are not parts of the image's size", WAY)
    if len(values) > 5:  # a polygon
        across, down = values[0::2], values[1::2]
        return min(across), min(down), max(across), max(down)
    x, y, width, height = values[:4]  # a fifth number is a confidence
    return x - width / 2, y - height / 2, x + width / 2, y + height / 2


def _yaml(archive: Archive, others: Sequence[PurePosixPath]) -> list[str]:
    """The texts of the YAML files."""
    paths = (path for path in others if path.suffix.lower() in (".yaml", ".yml") and archive.files[path] <= NAMES_BYTES)
    return [bytes(archive.read(path)).decode("utf-8", "replace") for path in paths]


def _names(archive: Archive, others: Sequence[PurePosixPath], yaml: Sequence[str]) -> list[str]:
    """The class names of `data.yaml` (any file with a key `names`), or of a file with one name in each line; else none."""
    if names := next(filter(None, map(yaml_names, yaml)), None):
        return names
    for path in others:
        if path.name.lower() in NAME_FILES and archive.files[path] <= NAMES_BYTES:
            text = bytes(archive.read(path)).decode("utf-8", "replace")
            return [line.strip()[:200] for line in text.splitlines() if line.strip()]
    return []


def yaml_names(text: str) -> list[str]:
    """The list or the numbered names of the key `names` in a YAML file; empty without one."""
    lines = text.splitlines()
    start = next((place for place, line in enumerate(lines) if re.match(r"names\s*:", line)), None)
    if start is None:
        return []
    rest = "\n".join([lines[start].partition(":")[2].partition(" #")[0], *lines[start + 1 :]])
    if rest.lstrip().startswith(("[", "{")):
        inner = re.split(r"[\]}]", rest.lstrip()[1:], maxsplit=1)[0]
        items = [item for item in inner.split(",") if item.strip()]
        return _in_order([_pair(item, place) for place, item in enumerate(items)])
    pairs: list[tuple[int, str]] = []
    for line in lines[start + 1 :]:
        if not line.strip() or line.lstrip().startswith("#"):
            continue
        if match := re.fullmatch(r"\s*-\s+(.+)", line):
            pairs.append((len(pairs), _plain(match.group(1))))
        elif match := re.fullmatch(r"\s+(\d{1,6})\s*:\s*(.+)", line):
            pairs.append((int(match.group(1)), _plain(match.group(2))))
        else:
            break
    return _in_order(pairs)


def _pair(item: str, place: int) -> tuple[int, str]:
    match = re.fullmatch(r"\s*(\d{1,6})\s*:\s*(.+?)\s*", item, re.DOTALL)
    return (int(match.group(1)), _plain(match.group(2))) if match else (place, _plain(item))


def _plain(text: str) -> str:
    return text.partition(" #")[0].strip().strip("'\"")[:200]


def _in_order(pairs: Sequence[tuple[int, str]]) -> list[str]:
    names = dict(pairs)
    return (
        [names.get(number, str(number)) for number in range(max(names, default=-1) + 1)] if len(names) < 10_000 else []
    )


def _check_numbers(used: set[int], names: Sequence[str]) -> None:
    largest = max(used, default=-1)
    if largest < len(names):
        return
    words = counted(len(names), "there are boxes of the class {largest}, but {n} class name[s]", largest=largest)
    if largest == len(names) and 0 not in used:
        words += ": the numbers seem to begin at 1, as if the background counted"
    raise UploadError(words, "Number the classes from 0, without the background, and name each of them.")
