"""Images with their labels in tables of the archive: `filename,label`, with or without a header, or a column for each class."""

import re
from collections.abc import Sequence
from pathlib import PurePosixPath

from worker.distillation.data.packed import Options
from worker.distillation.data.reading.archives.archive import Archive
from worker.distillation.data.reading.label_table import Names, Table
from worker.distillation.data.reading.layout import NOT_IMAGES, Layout
from worker.distillation.data.reading.split_names import split_of
from worker.distillation.data.reading.written_labels import Written, layout_of
from worker.distillation.errors import UploadError
from worker.distillation.limits import UploadLimits
from worker.distillation.wording import counted

SUFFIXES = (".csv", ".tsv", ".txt")
CORNERS = ({"xmin", "ymin", "xmax", "ymax"}, {"x_min", "y_min", "x_max", "y_max"}, {"x1", "y1", "x2", "y2"}, {"bbox"})
"""Columns of boxes."""
ANSWERS = re.compile(r"(?:^|[^a-z])submi(?:t|ssion)")
"""In the name of a table of made-up labels, as contests give them: `sample_submission.csv`."""
TABLE_BYTES = 64 * 2**20


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
