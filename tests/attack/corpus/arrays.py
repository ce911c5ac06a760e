"""safetensors, npy and npz files whose headers lie."""

import io
import json
import struct
import zipfile
from collections.abc import Iterator
from typing import Any

import numpy as np

from tests.attack.corpus.archives import deflated, stored_zip
from tests.attack.corpus.case import UNNAMED, Canary, Case

DATASET: dict[str, Any] = {}
WEIGHTS = {"kind": "weights"}


def safetensors(canary: Canary) -> Iterator[Case]:
    """Headers of safetensors with wrong lengths, offsets, shapes, types and names."""
    entry = {"dtype": "F32", "shape": [2, 2], "data_offsets": [0, 16]}

    def one(**changed: Any) -> bytes:
        return _safetensors({"conv1.weight": entry | changed}, bytes(16))

    files: dict[str, bytes] = {
        "empty": b"",
        "short": b"\1",
        "no_header": struct.pack("<Q", 0),
        "longer": struct.pack("<Q", 2**62) + b"{}",
        "negative": struct.pack("<q", -1) + b"{}",
        "no_json": struct.pack("<Q", 5) + b"nojso",
        "list": _raw(b"[]"),
        "utf8": _raw(b'{"\xff":1}'),
        "nested": _raw(b'{"a":' * 50_000 + b"1" + b"}" * 50_000),
        "nan": _raw(b'{"w":NaN}'),
        "digits": _raw(b'{"w":' + b"9" * 100_000 + b"}"),
        "twice": _raw(
            b'{"w":{"dtype":"F32","shape":[],"data_offsets":[0,4]},"w":{"dtype":"F64","shape":[],"data_offsets":[0,8]}}'
        )
        + bytes(8),
        "backwards": one(data_offsets=[16, 0]),
        "beyond": one(data_offsets=[0, 2**40]),
        "below": one(data_offsets=[-16, 0]),
        "three_offsets": one(data_offsets=[0, 8, 16]),
        "text_offsets": one(data_offsets=["0", "16"]),
        "float_shape": one(shape=[2.0, 2]),
        "negative_shape": one(shape=[-2, -2]),
        "overflow": one(shape=[2**32, 2**32 + 4]),
        "other_shape": one(shape=[4, 4]),
        "dimensions": one(shape=[1] * 200, data_offsets=[0, 4]),
        "no_elements": one(shape=[0, 2**62], data_offsets=[0, 0]),
        "dtype": one(dtype="F128"),
        "dtype_list": one(dtype=["F32"]),
        "float8": one(dtype="F8_E4M3", shape=[16]),
        "bool": one(dtype="BOOL", shape=[16]),
        "unknown_key": one(hook="os.system"),
        "trailing": one() + bytes(1000),
        "cut": one()[:-1],
        "overlap": _safetensors({"a": entry, "b": entry}, bytes(16)),
        "hole": _safetensors({"a": entry, "b": entry | {"data_offsets": [32, 48]}}, bytes(48)),
        "metadata_number": _safetensors({"__metadata__": {"a": 1}, "w": entry}, bytes(16)),
        "metadata_large": _safetensors({"__metadata__": {"a": "x" * 20_000_000}, "w": entry}, bytes(16)),
        "metadata_program": _safetensors({"__metadata__": {"program": "{}"}, "w": entry}, bytes(16)),
        "many": _safetensors({f"t{n}": entry | {"shape": [0], "data_offsets": [0, 0]} for n in range(50_000)}, b""),
    }
    for name, word in _names().items():
        files[f"name_{name}"] = _safetensors({word: entry}, bytes(16))
    for name, data in files.items():
        yield Case("safetensors", name, lambda data=data: data)
        yield Case("safetensors", f"{name}-unnamed", lambda data=data: data, record=UNNAMED)
        yield Case("safetensors", f"{name}-file", lambda data=data: data, "files", WEIGHTS)


def npy(canary: Canary) -> Iterator[Case]:
    """Headers of npy files with code, huge shapes and odd types; npz archives of them."""
    path = canary.mark("npy")
    plain = "{'descr': '|u1', 'fortran_order': False, 'shape': (4, 8, 8), }"
    heads: dict[str, str] = {
        "code": f"__import__('os').mkdir({path!r})",
        "code_in_it": plain.replace("(4, 8, 8)", f"__import__('os').mkdir({path!r})"),
        "huge": plain.replace("4, 8", f"{2**62}, 8"),
        "negative": plain.replace("4, 8", "-4, -8"),
        "float": plain.replace("4,", "4.0,"),
        "boolean": plain.replace("(4, 8, 8)", "(True, True)"),
        "no_shape": plain.replace("'shape'", "'shap'"),
        "dimensions": plain.replace("(4, 8, 8)", str((1,) * 100)),
        "empty": plain.replace("4, 8", f"0, {2**62}"),
        "objects": plain.replace("|u1", "|O"),
        "void": plain.replace("|u1", "|V1000000000"),
        "text": plain.replace("|u1", "<U1000000000"),
        "record": plain.replace("'|u1'", "[('a', '|O'), ('b', '<f8', (99999, 99999))]"),
        "dates": plain.replace("|u1", "<M8[ns]"),
        "complex": plain.replace("|u1", "<c16"),
        "fortran": plain.replace("False", "True"),
        "parentheses": "(" * 60_000,
        "nested": "{'descr':" * 5000,
        "spaces": " " * 60_000,
        "nothing": "",
        "nul": "\0" * 100,
        "minus": "-" * 60_000 + "1",
        "digits": plain.replace("4, 8", "9" * 50_000 + ", 8"),
        "strings": "'a'" * 10_000,
    }
    for name, head in heads.items():
        data = _npy(head, bytes(256))
        yield Case("npy", name, lambda data=data: data, "datasets", DATASET)
        zipped = stored_zip({"x_train.npy": data, "y_train.npy": _array(np.arange(4))})
        yield Case("npy", f"{name}-in-npz", lambda data=zipped: data, "datasets", DATASET)
        weights = stored_zip({"conv1.weight.npy": data})
        yield Case("npy", f"{name}-weights", lambda data=weights: data)
    for version in (0, 4, 255):
        data = b"\x93NUMPY" + bytes([version, 0]) + _npy(plain, bytes(256))[8:]
        yield Case("npy", f"version_{version}", lambda data=data: data, "datasets", DATASET)
    long = b"\x93NUMPY\x02\x00" + struct.pack("<I", 2**32 - 1) + plain.encode()
    yield Case("npy", "length", lambda: long, "datasets", DATASET)


def npz(canary: Canary) -> Iterator[Case]:
    """Datasets of arrays that contradict each other, or that hold absurd values."""
    images, labels = np.zeros((8, 8, 8), np.uint8), np.arange(8) % 2
    tables: dict[str, dict[str, Any]] = {
        "no_labels": {"x_train": images},
        "no_images": {"y_train": labels},
        "lengths": {"x_train": images, "y_train": labels[:3]},
        "negative": {"x_train": images, "y_train": labels - 5},
        "far": {"x_train": images, "y_train": labels.astype(np.int64) * 2**62},
        "nan": {"x_train": images.astype(np.float32) * np.nan, "y_train": labels},
        "infinite": {"x_train": images + np.inf, "y_train": labels},
        "nan_labels": {"x_train": images, "y_train": labels * np.nan},
        "texts": {"x_train": images, "y_train": labels.astype("U10")},
        "scalar": {"x_train": np.uint8(1), "y_train": np.uint8(1)},
        "no_rows": {"x_train": images[:0], "y_train": labels[:0]},
        "no_pixels": {"x_train": np.zeros((8, 0, 0), np.uint8), "y_train": labels},
        "wide": {"x_train": np.zeros((1, 1, 60_000), np.uint8), "y_train": labels[:1]},
        "dimensions": {"x_train": np.zeros((8, *[1] * 20), np.uint8), "y_train": labels},
        "classes": {"x_train": images, "y_train": np.arange(8) * 10**6},
        "many": {f"a{number}": labels for number in range(5000)},
        "odd_names": {"../x_train": images, "\0": labels, "x" * 10_000: labels},
    }
    for name, table in tables.items():
        yield Case("npz", name, lambda table=table: _npz(table), "datasets", DATASET)
    header = _npy("{'descr': '|u1', 'fortran_order': False, 'shape': (100000, 100, 100), }", b"")
    for name, method, claimed in (("bomb", 8, None), ("bomb_that_lies", 8, 1000)):
        for resource, entry in (("datasets", "x_train.npy"), ("teachers", "conv1.weight.npy")):
            yield Case(
                "npz",
                f"{name}-{resource}",
                lambda entry=entry, method=method, claimed=claimed: stored_zip(
                    {entry: deflated(10**9, header), "y_train.npy": _array(np.arange(8))},
                    raw={entry: (method, claimed or 10**9)},
                ),
                resource,
                DATASET if resource == "datasets" else UNNAMED,
            )


def _names() -> dict[str, str]:
    return {
        "none": "",
        "dots": "../../etc/passwd",
        "absolute": "/etc/passwd",
        "nul": "a\0b",
        "long": "n" * 10_000,
        "unicode": "\u202eé\u0301𝒲",
        "dunder": "__class__.__init__.__globals__",
        "digits": "0" * 5000,
        "deep": ".".join("a" * 5000),
        "control": "\x1b[31m\r\n",
        "dot": ".",
    }


def _raw(header: bytes) -> bytes:
    return struct.pack("<Q", len(header)) + header


def _safetensors(header: dict[str, Any], data: bytes) -> bytes:
    return _raw(json.dumps(header).encode()) + data


def _npy(head: str, data: bytes) -> bytes:
    encoded = head.encode()
    return b"\x93NUMPY\x02\x00" + struct.pack("<I", len(encoded)) + encoded + data


def _array(values: Any) -> bytes:
    stream = io.BytesIO()
    np.save(stream, values)
    return stream.getvalue()


def _npz(table: dict[str, Any]) -> bytes:
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w") as archive:
        for name, values in table.items():
            archive.writestr(f"{name}.npy".replace("\0", "nul"), _array(values))
    return stream.getvalue()
