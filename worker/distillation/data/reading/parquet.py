"""Parquet, as model hubs write image sets: a row for each image, with a column of encoded images and one of labels.

Shapes and types of the columns: the images are bytes, or a struct with the field `bytes`; the labels are integers, whose class
names may be in the metadata of the schema (key `huggingface`), or texts. Source: the Parquet format, and the features
`Image` and `ClassLabel` of the library datasets.
"""

import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path, PurePosixPath
from typing import Any

from worker.distillation.data.packed import Options, Packed
from worker.distillation.data.reading.archives.archive import RATIO_MATTERS, Archive
from worker.distillation.data.reading.folders import read_layout
from worker.distillation.data.reading.label_table import FILE_COLUMNS, LABEL_COLUMNS
from worker.distillation.data.reading.layout import Layout
from worker.distillation.data.reading.split_names import split_of
from worker.distillation.data.reading.written_labels import Written, layout_of
from worker.distillation.errors import UploadError
from worker.distillation.limits import UploadLimits

MAGIC, SUFFIX = b"PAR1", ".parquet"
ROWS = 64
"""Rows that are in memory at a time."""
HINT = "Send a column of image bytes, or of structs with the field `bytes`, and a column of labels; or a zip of class folders."
LABELS = tuple(dict.fromkeys(("label", "labels", "fine_label", *LABEL_COLUMNS, "coarse_label")))
"""Columns of labels; the first that is there is read."""


class Table:
    """One Parquet file: its columns, and its rows in order."""

    def __init__(self, name: PurePosixPath, source: Any, limits: UploadLimits):
        import pyarrow.parquet

        self.name = name
        self._file = pyarrow.parquet.ParquetFile(source)
        groups = [self._file.metadata.row_group(at) for at in range(self._file.num_row_groups)]
        size = sum(group.total_byte_size for group in groups)
        if self.rows > limits.entries or size > limits.inflated_bytes:
            raise UploadError(
                f"{self._shown} has {self.rows} rows of {size} bytes; the maximum is {limits.entries} rows of"
                f" {limits.inflated_bytes} bytes",
                "Send fewer or smaller images.",
            )
        stored = sum(group.column(at).total_compressed_size for group in groups for at in range(group.num_columns))
        self._most = max(RATIO_MATTERS, limits.ratio * stored)
        self.check_inflated(size)
        schema = self._file.schema_arrow
        self.image = self._image_column(schema)
        self.label = next((each for each in LABELS if each in schema.names), None)
        self.class_names = _class_names(schema.metadata, self.label)

    def check_inflated(self, size: int) -> None:
        """Check uncompressed bytes against the stored ones; those of a dictionary's image count each time that it is used.

        Raises:
            UploadError: the compression ratio is too high.
        """
        if size > self._most:
            raise UploadError(
                f"{self._shown} inflates to more than {self._most} bytes: its compression ratio is too high",
                "Store the images without compression, and each image once.",
            )

    @property
    def rows(self) -> int:
        return int(self._file.metadata.num_rows)

    @property
    def split(self) -> str:
        """By the file's name, such as `train-00000-of-00002.parquet`, or by its folders, else `train`."""
        names = (self.name.stem, self.name.stem.split("-")[0], *self.name.parts[:-1])
        return next((split for name in names if (split := split_of(name))), "train")

    def images(self) -> Iterator[bytes | None]:
        """The encoded image of every row; None where there is none."""
        for value in self._values(self.image):
            yield value.get("bytes") if isinstance(value, dict) else value

    def labels(self) -> Iterator[str | None]:
        """The label of every row as text."""
        for value in self._values(self.label) if self.label else ():
            if value is not None and (isinstance(value, bool) or not isinstance(value, int | str)):
                words = f"the column {self.label!r} of {self._shown} holds {type(value).__name__} values"
                raise UploadError(words, "Send one integer or one text for each image.")
            if isinstance(value, int) and 0 <= value < len(self.class_names):
                yield self.class_names[value]
            else:
                yield None if value is None else str(value)

    def _values(self, column: str) -> Iterator[Any]:
        for batch in self._file.iter_batches(batch_size=ROWS, columns=[column], use_threads=False):
            yield from batch.column(0).to_pylist()

    def _image_column(self, schema: Any) -> str:
        """The column of images: one with a usual name first."""
        import pyarrow

        def holds_bytes(kind: Any) -> bool:
            return bool(pyarrow.types.is_binary(kind) or pyarrow.types.is_large_binary(kind))

        found = [
            field.name
            for field in schema
            if holds_bytes(field.type)
            or (
                pyarrow.types.is_struct(field.type)
                and any(e.name == "bytes" and holds_bytes(e.type) for e in field.type)
            )
        ]
        if not found:
            raise UploadError(f"{self._shown} has no column of images; its columns are {schema.names[:20]}", HINT)
        return min(found, key=lambda name: (name.lower() not in FILE_COLUMNS, found.index(name)))

    @property
    def _shown(self) -> str:
        return repr(str(self.name)[:120])


class ParquetArchive(Archive):
    """The images of tables as files `TABLE/ROW`, which are read fastest in their order.

    `sources`: by the table's name a function that returns what pyarrow reads it from. `written` and `unlabelled` are its
    images with and without a label, by split.
    """

    def __init__(self, sources: Mapping[PurePosixPath, Any], limits: UploadLimits):
        super().__init__(limits)
        self._sources = sources
        self._rows: tuple[PurePosixPath | None, int, Iterator[bytes | None]] = (None, 0, iter(()))
        self.written: dict[str, list[Written]] = {}
        self.unlabelled: dict[str, list[PurePosixPath]] = {}
        self.class_names: Sequence[str] = ()
        for name in sorted(sources):
            self._list(self._table(name))
        self.check_total()

    def _table(self, name: PurePosixPath) -> Table:
        return Table(name, self._sources[name](), self.limits)

    def _list(self, table: Table) -> None:
        self.class_names = self.class_names or table.class_names
        labels, inflated = table.labels(), 0
        for row, image in enumerate(table.images()):
            self.count_entry()
            inflated += len(image or b"")
            table.check_inflated(inflated)
            label, path = next(labels, None), table.name / f"{row:09}"
            self.files[path] = len(image or b"")
            if label is None:
                self.unlabelled.setdefault(table.split, []).append(path)
            else:
                self.written.setdefault(table.split, []).append((path, label))

    def head(self, path: PurePosixPath, count: int) -> bytes:
        return bytes(self._read(path, self.files[path])[:count])

    def _read(self, path: PurePosixPath, most: int) -> bytearray:
        table, row = path.parent, int(path.name)
        name, at, images = self._rows
        if name != table or at > row:
            at, images = 0, self._table(table).images()
        image = None
        while at <= row:
            image, at = next(images), at + 1
        self._rows = (table, at, images)
        self.count_bytes(path, len(image or b""), len(image or b""), most)
        return bytearray(image or b"")


def read_file(path: Path, options: Options, limits: UploadLimits) -> Packed:
    """The dataset in one Parquet file.

    Raises:
        UploadError: the file is refused.
    """
    return _read({PurePosixPath("data.parquet"): lambda: str(path)}, options, limits)


def read_members(archive: Archive, options: Options, limits: UploadLimits) -> Packed:
    """The dataset in the Parquet files of an archive, of which one at a time is in memory.

    Raises:
        UploadError: a file is refused.
    """
    import pyarrow

    def source(name: PurePosixPath) -> Any:
        return lambda: pyarrow.BufferReader(pyarrow.py_buffer(archive.read(name, limits.inflated_bytes)))

    return _read({name: source(name) for name in archive.files if name.suffix.lower() == SUFFIX}, options, limits)


def _read(sources: Mapping[PurePosixPath, Any], options: Options, limits: UploadLimits) -> Packed:
    import pyarrow

    try:
        archive = ParquetArchive(sources, limits)
        return read_layout(archive, _layout(archive, options, limits), options, limits, "parquet")
    except (pyarrow.ArrowException, OSError, ValueError) as error:
        words = f"the Parquet file is damaged or uses what is not read: {str(error)[:200]}"
        raise UploadError(words, "Write it again, or send a zip of class folders.") from error


def _layout(archive: ParquetArchive, options: Options, limits: UploadLimits) -> Layout:
    if not archive.written:
        layout = Layout({split: [(path, None) for path in paths] for split, paths in archive.unlabelled.items()}, ())
        layout.notes.append("there is no column of labels: the images can be used without labels only")
        return layout
    if archive.class_names:
        layout = Layout({split: list(rows) for split, rows in archive.written.items()}, tuple(archive.class_names))
        _check_names(layout)
    else:
        layout = layout_of(archive.written, options, limits)
    without = sum(map(len, archive.unlabelled.values()))
    layout.leave_out("without_label", without, "{n} image[s] [has|have] no label and [was|were] left out")
    return layout


def _check_names(layout: Layout) -> None:
    known = set(layout.classes)
    strange = next((label for rows in layout.splits.values() for _, label in rows if label not in known), None)
    if strange is not None:
        words = f"a label is {str(strange)[:80]!r}, which is none of the {len(known)} class names of the schema"
        raise UploadError(words, "Correct the labels, or the names in the schema's metadata.")


def _class_names(metadata: Mapping[bytes, bytes] | None, label: str | None) -> Sequence[str]:
    """The names of a `ClassLabel` in the metadata that the library datasets writes; empty if there are none."""
    try:
        written = json.loads((metadata or {}).get(b"huggingface", b"{}"))["info"]["features"][label]["names"]
    except (ValueError, RecursionError, LookupError, TypeError):
        return ()
    names = list(written.values()) if isinstance(written, dict) else written
    if not isinstance(names, list) or not all(isinstance(name, str) for name in names) or len(set(names)) < len(names):
        return ()
    return names
