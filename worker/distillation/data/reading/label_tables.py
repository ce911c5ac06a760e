"""Images with their labels in tables of the archive: `filename,label`, with or without a header, or a column for each class."""

import csv
import io
from collections.abc import Iterator, Sequence
from pathlib import PurePosixPath

from worker.distillation.data.packed import Options
from worker.distillation.data.reading.archive import Archive
from worker.distillation.data.reading.layout import NOT_IMAGES, Layout
from worker.distillation.data.reading.split_names import split_of
from worker.distillation.data.reading.written_labels import Written, layout_of
from worker.distillation.limits import UploadLimits
from worker.distillation.wording import counted

SUFFIXES = (".csv", ".tsv", ".txt")
FILE_COLUMNS = frozenset(
    [
        "filename",
        "file_name",
        "filenames",
        "file",
        "files",
        "filepath",
        "filepaths",
        "file_path",
        "image",
        "images",
        "image_name",
        "image_path",
        "image_id",
        "imagename",
        "img",
        "img_name",
        "img_path",
        "path",
        "name",
        "id",
        "id_code",
    ]
)
LABEL_COLUMNS = frozenset(
    [
        "label",
        "labels",
        "label_name",
        "label_id",
        "class",
        "classes",
        "class_name",
        "class_id",
        "classname",
        "category",
        "category_id",
        "category_name",
        "target",
        "targets",
        "y",
        "breed",
        "species",
        "diagnosis",
        "dx",
        "level",
        "variety",
        "type",
    ]
)
SPLIT_COLUMNS = frozenset(["split", "set", "subset", "partition", "fold", "dataset", "data_set"])
TABLE_BYTES = 64 * 2**20
SEEN = 200
"""Rows by which the columns of a table are found."""
Row = Sequence[str]


class Names:
    """The images of an archive by what a table may call them: the path, its end, the file's name, or the name's stem."""

    def __init__(self, images: Sequence[PurePosixPath]):
        self._by_name: dict[str, PurePosixPath | None] = {}
        for path in images:
            for start in range(len(path.parts)):
                tail = PurePosixPath(*path.parts[start:])
                for name in {str(tail), str(tail.with_suffix(""))}:
                    self._by_name[name] = None if name in self._by_name else path

    def find(self, text: str) -> PurePosixPath | None:
        """The image that a cell names; None if there is none, or more than one."""
        parts = [part for part in text.strip().replace("\\", "/").split("/") if part not in ("", ".", "..")]
        tails = ("/".join(parts[start:]) for start in range(min(len(parts), 8)))
        return next((path for tail in tails if (path := self._by_name.get(tail))), None)


def find(
    archive: Archive,
    images: Sequence[PurePosixPath],
    others: Sequence[PurePosixPath],
    options: Options,
    limits: UploadLimits,
) -> Layout | None:
    """The layout by the archive's tables; None if none labels its images.

    Raises:
        UploadError: the labels of a table are invalid.
    """
    tables = [path for path in others if path.suffix.lower() in SUFFIXES and archive.files[path] <= TABLE_BYTES][:20]
    names = Names(images) if tables else None
    splits: dict[str, list[Written]] = {}
    seen: set[PurePosixPath] = set()
    read = []
    for path in tables:
        assert names is not None
        before = len(seen)
        for image, label, split in _rows(archive.read(path).decode("utf-8", "replace"), names):
            if image not in seen:
                seen.add(image)
                splits.setdefault(split or _split(path, image), []).append((image, label))
        read += [path] if len(seen) > before else []
    if not splits:
        return None
    layout = layout_of({split: sorted(each) for split, each in splits.items()}, options, limits)
    listed = ", ".join(str(path)[:80] for path in read)
    words = "the label[s] of {n} image[s] [was|were] read from {listed}"
    layout.notes.append(counted(len(seen), words, listed=listed))
    words = "{n} image[s] [has|have] no label in a table and [was|were] left out"
    layout.leave_out("without_label", len(images) - len(seen), words)
    unread = len(others) - len(read)
    layout.leave_out("not_images", unread, NOT_IMAGES)
    return layout


def _split(table: PurePosixPath, image: PurePosixPath) -> str:
    """The split of an image: by its table's name, or by its folders' names, else `train`."""
    names = (table.stem, *table.parts[:-1], *image.parts[:-1])
    return next((split for name in names if (split := split_of(name))), "train")


def _rows(text: str, names: Names) -> Iterator[tuple[PurePosixPath, str, str | None]]:
    """Image, label and split of every row that names an image."""
    rows = _cells(text.removeprefix("\ufeff"))
    if not rows:
        return
    header = [cell.strip().lower().replace(" ", "_") for cell in rows[0]]
    has_header = not any(names.find(cell) for cell in rows[0])
    body = rows[1:] if has_header else rows
    file = _file_column(header if has_header else [], body, names)
    if file is None:
        return
    label, one_hot = _label_column(header if has_header else [], body, file)
    split = next((at for at, name in enumerate(header) if has_header and name in SPLIT_COLUMNS and at != label), None)
    for row in body:
        image = names.find(row[file]) if file < len(row) else None
        if image is None:
            continue
        if one_hot:
            yield image, rows[0][next(at for at in one_hot if _is_one(row[at]))].strip(), None
        elif label is not None and label < len(row) and row[label].strip():
            told = split_of(row[split].strip()) if split is not None and split < len(row) else None
            yield image, row[label].strip(), told


def _cells(text: str) -> list[list[str]]:
    line = text.split("\n", 1)[0]
    delimiter = next((each for each in (",", "\t", ";", "|", " ") if each in line), ",")
    try:
        return [row for row in csv.reader(io.StringIO(text), delimiter=delimiter) if len(row) > 1]
    except csv.Error:
        return []


def _file_column(header: Sequence[str], body: Sequence[Row], names: Names) -> int | None:
    """The column that names images in most rows."""
    width = min((len(row) for row in body), default=0)
    rows = body[:SEEN]
    hits = [(sum(names.find(row[at]) is not None for row in rows), -at) for at in range(width)]
    named = [at for at in range(width) if at < len(header) and header[at] in FILE_COLUMNS and hits[at][0]]
    most, place = max(hits, default=(0, 0))
    return named[0] if named else -place if most else None


def _label_column(header: Sequence[str], body: Sequence[Row], file: int) -> tuple[int | None, list[int]]:
    """The column of the labels, or the columns of 0 and 1 of which each row has a single 1."""
    known = [at for at, name in enumerate(header) if name in LABEL_COLUMNS and at != file]
    width = min((len(row) for row in body), default=0)
    rest = [at for at in range(width) if at != file]
    if known:
        return known[0], []
    if len(rest) == 1:
        return rest[0], []
    binary = header and all(
        all(_is_one(row[at]) or row[at].strip() in ("0", "0.0") for at in rest)
        and sum(_is_one(row[at]) for at in rest) == 1
        for row in body
    )
    return (None, rest) if binary else (None, [])


def _is_one(cell: str) -> bool:
    return cell.strip() in ("1", "1.0")
