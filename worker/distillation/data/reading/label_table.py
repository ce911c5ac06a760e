"""A table of labels: which of its columns names the images, and which has their classes."""

import csv
import io
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import PurePosixPath

from worker.distillation.data.reading.archives.archive import Archive
from worker.distillation.data.reading.split_names import split_of
from worker.distillation.data.reading.written_labels import text_of
from worker.distillation.errors import UploadError

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
LABEL_COLUMNS = (
    *("label", "labels", "label_name", "class", "classes", "class_name", "classname", "category", "category_name", "target", "targets"),
    *("label_id", "class_id", "category_id", "y", "breed", "species", "variety", "diagnosis", "dx", "level", "type"),
)  # fmt: skip
"""Names of columns of labels; of several that a table has, the first of these is read."""
SPLIT_COLUMNS = frozenset(["split", "set", "subset", "partition", "fold", "dataset", "data_set"])
SPLIT_FLAGS = {"is_valid": "val", "is_val": "val", "is_validation": "val", "is_test": "test"}
"""Columns that are true for the rows of a split."""
TRUE = frozenset(["true", "1", "1.0", "yes"])
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


@dataclass
class Table:
    """A table of the archive: its `header` in lower case, empty if it has none, its rows, and the places of the columns.

    `label` is None and `one_hot` empty if no column is that of the labels.
    """

    path: PurePosixPath
    header: list[str]
    titles: Row
    body: Sequence[Row]
    file: int
    label: int | None
    one_hot: list[int]

    @classmethod
    def read(cls, archive: Archive, path: PurePosixPath, names: Names) -> "Table | None":
        """The table; None if it names no images."""
        rows = _cells(text_of(archive.read(path)))
        if not rows:
            return None
        header = [re.sub(r"[ -]", "_", cell.strip().lower()) for cell in rows[0]]
        if any(names.find(cell) for cell in rows[0]):
            header = []
        body = rows[1:] if header else rows
        file = _file_column(header, body, names)
        return None if file is None else cls(path, header, rows[0], body, file, *_label_column(header, body, file))

    @property
    def shown(self) -> str:
        return str(self.path)[:80]

    def rows(self, names: Names) -> Iterator[tuple[PurePosixPath, str, str | None]]:
        """Image, label and split of every row that names an image.

        Raises:
            UploadError: an image has two labels.
        """
        split = next((at for at, name in enumerate(self.header) if name in SPLIT_COLUMNS and at != self.label), None)
        flags = {at: SPLIT_FLAGS[name] for at, name in enumerate(self.header) if name in SPLIT_FLAGS}
        given: dict[PurePosixPath, str] = {}
        for row in self.body:
            image, label = names.find(_cell(row, self.file)), self._label(row)
            if image is None or not label:
                continue
            if given.setdefault(image, label) != label:
                words = f"the table {self.shown!r} gives the image {str(image)[:80]!r} two labels: {given[image][:40]!r} and {label[:40]!r}"
                hint = "Keep one row for each image. For several labels of an image, send an npz file with the option labels `multi_label`."
                raise UploadError(words, hint)
            told = next((name for at, name in flags.items() if _cell(row, at).lower() in TRUE), None)
            yield image, label, told or (split_of(_cell(row, split)) if split is not None else None)

    def _label(self, row: Row) -> str:
        if self.one_hot:
            return self.titles[next(at for at in self.one_hot if _is_one(row[at]))].strip()
        return "" if self.label is None else _cell(row, self.label)

    def missing(self, names: Names) -> int:
        """Number of rows that name no image of the archive."""
        return sum(names.find(_cell(row, self.file)) is None for row in self.body)

    def source(self) -> str:
        """The table and the column of its labels, in words."""
        column = (
            f"the column {self.titles[self.label].strip()[:40]!r} of " if self.header and self.label is not None else ""
        )
        return f"{column}{self.shown}"


def _cell(row: Row, at: int) -> str:
    return row[at].strip() if at < len(row) else ""


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
    places = {name: at for at, name in reversed(list(enumerate(header))) if at != file}
    if "x" in places:  # coordinates, as `filename,x,y`
        places.pop("y", None)
    known = [places[name] for name in LABEL_COLUMNS if name in places]
    width = min((len(row) for row in body), default=0)
    rest = [at for at in range(width) if at != file]
    if known:
        return known[0], []
    if len(rest) == 1 and "x" not in header:
        return rest[0], []
    binary = header and all(
        all(_is_one(row[at]) or row[at].strip() in ("0", "0.0") for at in rest)
        and sum(_is_one(row[at]) for at in rest) == 1
        for row in body
    )
    return (None, rest) if binary else (None, [])


def _is_one(cell: str) -> bool:
    return cell.strip() in ("1", "1.0")
