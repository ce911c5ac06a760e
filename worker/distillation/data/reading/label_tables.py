"""Images with their labels in tables of the archive: `filename,label`, with or without a header, or a column for each class."""

import csv
import io
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import PurePosixPath

from worker.distillation.data.packed import Options
from worker.distillation.data.reading.archive import Archive
from worker.distillation.data.reading.layout import NOT_IMAGES, Layout
from worker.distillation.data.reading.split_names import split_of
from worker.distillation.data.reading.written_labels import Written, layout_of, text_of
from worker.distillation.errors import UploadError
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
LABEL_COLUMNS = (
    *("label", "labels", "label_name", "class", "classes", "class_name", "classname", "category", "category_name", "target", "targets"),
    *("label_id", "class_id", "category_id", "y", "breed", "species", "variety", "diagnosis", "dx", "level", "type"),
)  # fmt: skip
"""Names of columns of labels; of several that a table has, the first of these is read."""
SPLIT_COLUMNS = frozenset(["split", "set", "subset", "partition", "fold", "dataset", "data_set"])
SPLIT_FLAGS = {"is_valid": "val", "is_val": "val", "is_validation": "val", "is_test": "test"}
"""Columns that are true for the rows of a split."""
TRUE = frozenset(["true", "1", "1.0", "yes"])
CORNERS = ({"xmin", "ymin", "xmax", "ymax"}, {"x_min", "y_min", "x_max", "y_max"}, {"x1", "y1", "x2", "y2"}, {"bbox"})
"""Columns of boxes."""
ANSWERS = re.compile(r"(?:^|[^a-z])submi(?:t|ssion)")
"""In the name of a table of made-up labels, as contests give them: `sample_submission.csv`."""
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


def find(
    archive: Archive,
    images: Sequence[PurePosixPath],
    others: Sequence[PurePosixPath],
    options: Options,
    limits: UploadLimits,
) -> Layout | None:
    """The layout by the archive's tables; None if none labels its images.

    Raises:
        UploadError: the labels of a table are invalid, or it holds boxes.
    """
    names, tables = _tables(archive, images, others)
    splits: dict[str, list[Written]] = {}
    labels: dict[PurePosixPath, str] = {}
    read: list[Table] = []
    notes: list[str] = []
    for table in tables:
        _refuse_boxes(table, options)
        before, differing = len(labels), 0
        for image, label, split in table.rows(names):
            if image not in labels:
                labels[image] = label
                splits.setdefault(split or _split(table.path, image), []).append((image, label))
            differing += labels[image] != label
        if differing:
            words = "{n} image[s] [has|have] another label in {table} than in the tables before it, which was not read"
            notes.append(counted(differing, words, table=table.source()))
        read += [table] if len(labels) > before else []
    if not splits:
        return None
    layout = layout_of({split: sorted(each) for split, each in splits.items()}, options, limits)
    words = "the label[s] of {n} image[s] [was|were] read from {listed}"
    layout.notes.append(counted(len(labels), words, listed=", ".join(table.source() for table in read)))
    layout.notes += notes
    for table in read:
        if missing := table.missing(names):
            words = "{n} row[s] of {table} name[s|] no image of the archive"
            layout.notes.append(counted(missing, words, table=table.shown))
    words = "{n} image[s] [has|have] no label in a table and [was|were] left out"
    layout.leave_out("without_label", len(images) - len(labels), words)
    layout.leave_out("not_images", len(others) - len(read), NOT_IMAGES)
    return layout


def refuse_unclear(archive: Archive, images: Sequence[PurePosixPath], others: Sequence[PurePosixPath]) -> None:
    """Refuse a table that names most of its images, but has no column that is known to be that of the labels.

    Raises:
        UploadError: there is one.
    """
    names, tables = _tables(archive, images, others)
    for table in tables:
        found = len(table.body) - table.missing(names)
        if table.label is None and not table.one_hot and 2 * found >= len(images):
            columns = ", ".join(repr(title.strip()[:40]) for title in table.titles[:12])
            raise UploadError(
                f"the table {table.shown!r} names {found} images, but which of its columns has the labels is not clear: {columns}",
                "Call the column of the classes `label`, with one class for each image. For several labels of an image, or for numbers to"
                " predict, send an npz file. To use the images without labels, set the option labels to `none`.",
            )


def _tables(
    archive: Archive, images: Sequence[PurePosixPath], others: Sequence[PurePosixPath]
) -> tuple[Names, list[Table]]:
    paths = [
        path
        for path in others
        if path.suffix.lower() in SUFFIXES
        and archive.files[path] <= TABLE_BYTES
        and not ANSWERS.search(path.stem.lower())
    ][:20]
    names = Names(images if paths else ())
    return names, [table for path in paths if (table := Table.read(archive, path, names))]


def _refuse_boxes(table: Table, options: Options) -> None:
    if options.labels == "class" and any(corners <= set(table.header) for corners in CORNERS):
        raise UploadError(
            f"the table {table.shown!r} lists boxes, which are not read from tables",
            "Send boxes as COCO, Pascal VOC or YOLO files, with the option labels `boxes`; or set it to `none` for the images alone.",
        )


def _split(table: PurePosixPath, image: PurePosixPath) -> str:
    """The split of an image: by its table's name, or by its folders' names, else `train`."""
    names = (table.stem, *table.parts[:-1], *image.parts[:-1])
    return next((split for name in names if (split := split_of(name))), "train")


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
