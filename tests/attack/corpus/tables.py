"""Parquet files that lie, that grow, or that carry a pickle."""

import io
import struct
from collections.abc import Iterator
from typing import Any

import pyarrow
import pyarrow.parquet

from tests.attack.corpus.case import Canary, Case
from tests.attack.corpus.pickles import forms, payloads
from tests.worker.distillation.data.made_files import parquet, picture
from tests.worker.distillation.uploads.hostile_pickles import pickled


def tables(canary: Canary) -> Iterator[Case]:
    """Parquet files as datasets."""
    good = parquet([0, 1, 0, 1])
    files: dict[str, bytes] = {
        "only_marks": b"PAR1PAR1",
        "no_footer": good[:-8] + struct.pack("<I", 0) + b"PAR1",
        "long_footer": good[:-8] + struct.pack("<I", 2**32 - 1) + b"PAR1",
        "footer_of_structs": _footer(b"\x1c" * 100_000),
        "footer_of_lists": _footer(b"\x19\xfc\xff\xff\xff\xff\x0f" * 1000),
        "footer_of_texts": _footer(b"\x18\xff\xff\xff\xff\x0f"),
        "footer_zeros": _footer(bytes(1000)),
        "encrypted": good[:-4] + b"PARE",
        "cut": good[: len(good) // 2] + good[-200:],
    }
    for at in range(0, 400, 20):
        changed = bytearray(good)
        changed[-(10 + at)] ^= 0xFF
        files[f"footer_byte_{at}"] = bytes(changed)
    for name, data in files.items():
        yield Case("parquet", name, lambda data=data: data, "datasets", {})
    for name, columns in _columns().items():
        yield Case("parquet", name, lambda columns=columns: _written(columns), "datasets", {})
    for form in ("reduce", "inst", "obj"):
        name = f"pickled_type_{form}"
        yield Case("parquet", name, lambda form=form, name=name: _with_pickled_type(canary, form, name), "datasets", {})


def _columns() -> dict[str, dict[str, Any]]:
    pictures = [picture(number) for number in range(4)]
    return {
        "repeated_picture": {"image": pyarrow.array([pictures[0]] * 400_000), "label": pyarrow.array([0] * 400_000)},
        "large_texts": {"image": pyarrow.array([bytes(10**8)] * 4), "label": [0, 1, 0, 1]},
        "no_rows": {"image": pyarrow.array([], pyarrow.binary()), "label": pyarrow.array([], pyarrow.int64())},
        "nulls": {"image": pyarrow.array([None] * 4, pyarrow.binary()), "label": [None, 1, None, 1]},
        "lists": {"image": pyarrow.array([[[1] * 100] * 100] * 4), "label": [0, 1, 0, 1]},
        "paths": {"image": [{"bytes": None, "path": "/etc/passwd"}] * 4, "label": [0, 1, 0, 1]},
        "urls": {"image": [{"bytes": None, "path": "http://127.0.0.1/"}] * 4, "label": [0, 1, 0, 1]},
        "labels_far": {"image": pictures, "label": [0, 2**62, -(2**62), 1]},
        "labels_of_floats": {"image": pictures, "label": [0.5, float("nan"), float("inf"), 1]},
        "labels_of_texts": {"image": pictures, "label": ["../..", "\0", "n" * 10_000, "\x1b[31m"]},
        "many_columns": {f"c{number}": [1] for number in range(5000)} | {"image": [pictures[0]], "label": [0]},
        "two_images": {"image": pictures, "img": pictures, "label": [0, 1, 0, 1]},
        "odd_names": {"image": pictures, "label": [0, 1, 0, 1], "../x": [1] * 4, "n" * 10_000: [1] * 4},
        "dictionary": {
            "image": pyarrow.array(pictures * 1000).dictionary_encode(),
            "label": pyarrow.array([0, 1] * 2000),
        },
        "decimal": {"image": pictures, "label": pyarrow.array([1, 2, 3, 4]).cast(pyarrow.decimal128(38))},
        "deep": {"image": pictures, "label": [0, 1, 0, 1], "deep": pyarrow.array([_deep(60)] * 4)},
    }


def _deep(levels: int) -> Any:
    value: Any = 1
    for _ in range(levels):
        value = [value]
    return value


def _written(columns: dict[str, Any]) -> bytes:
    stream = io.BytesIO()
    pyarrow.parquet.write_table(pyarrow.table(columns), stream, compression="zstd")
    return stream.getvalue()


def _with_pickled_type(canary: Canary, form: str, name: str) -> bytes:
    """A column whose type is a pickled Python class, as old versions of pyarrow wrote and loaded it."""
    data = pickled(forms(payloads(canary, name)["mkdir"])[form])
    metadata = {b"ARROW:extension:name": b"arrow.py_extension_type", b"ARROW:extension:metadata": data}
    field = pyarrow.field("image", pyarrow.binary(), metadata=metadata)
    schema = pyarrow.schema([field, pyarrow.field("label", pyarrow.int64())])
    stream = io.BytesIO()
    table = pyarrow.table({"image": [picture(number) for number in range(4)], "label": [0, 1, 0, 1]}, schema=schema)
    pyarrow.parquet.write_table(table, stream)
    return stream.getvalue()


def _footer(data: bytes) -> bytes:
    return b"PAR1" + data + struct.pack("<I", len(data)) + b"PAR1"
