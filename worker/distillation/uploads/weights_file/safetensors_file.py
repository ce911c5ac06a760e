"""The safetensors format: a length (8 bytes), a JSON header, and data, which the header's entries cover without gap or overlap."""

import json
import math
from collections.abc import Mapping
from typing import Any, BinaryIO

from worker.distillation.errors import UploadError
from worker.distillation.limits import UploadLimits
from worker.distillation.uploads.weights_file.contents import Contents
from worker.distillation.uploads.weights_file.leaves import READABLE, Span, Strided

DTYPES = {
    "F64": "float64", "F32": "float32", "F16": "float16", "BF16": "bfloat16", "I64": "int64", "I32": "int32", "I16": "int16",
    "I8": "int8", "U8": "uint8", "BOOL": "bool",
}  # fmt: skip
"""Supported dtypes, and torch's names for them."""
AGAIN = "Save it again with `safetensors.torch.save_file`."


def is_safetensors(head: bytes) -> bool:
    """Whether a file's first bytes are those of safetensors."""
    return len(head) > 8 and head[8:9] == b"{" and int.from_bytes(head[:8], "little") < 2**40


def read(file: BinaryIO, size: int, limits: UploadLimits) -> Contents:
    """The tensors by name.

    Raises:
        UploadError: the header is malformed or does not match the file.
    """
    file.seek(0)
    length = int.from_bytes(file.read(8), "little")
    if length > limits.header_bytes:
        raise UploadError(f"the safetensors header has {length} bytes; the maximum is {limits.header_bytes}", AGAIN)
    if 8 + length > size:
        raise UploadError(
            f"the safetensors file is cut short: {8 + length - size} bytes of its header are missing", AGAIN
        )
    tensors, spans = _header(file.read(length))
    if len(tensors) > limits.tensors:
        message = f"the file contains {len(tensors)} tensors; the maximum is {limits.tensors}"
        raise UploadError(message, "Upload a smaller network.")
    _check_cover(spans, size - 8 - length)
    start = 8 + length
    found = {
        name: Strided(shape, _strides(shape), 0, READABLE[kind], name, _span(file, start + spans[name][0], spans[name]))
        for name, (shape, kind) in tensors.items()
    }
    return Contents("safetensors", found)


def _span(file: BinaryIO, start: int, place: tuple[int, int]) -> Any:
    return lambda: Span(file, start, place[1] - place[0])


def _header(text: bytes) -> tuple[dict[str, tuple[tuple[int, ...], str]], dict[str, tuple[int, int]]]:
    """Shapes and dtypes, and byte ranges, by name."""
    try:
        header = json.loads(text, object_pairs_hook=_unique)
        entries = {name: entry for name, entry in header.items() if name != "__metadata__"}
        kinds = {name: _checked(entry) for name, entry in entries.items()}
        spans = {name: (entry["data_offsets"][0], entry["data_offsets"][1]) for name, entry in entries.items()}
    except (ValueError, KeyError, TypeError, AttributeError, IndexError, RecursionError) as error:
        raise UploadError(f"the safetensors header is malformed: {str(error)[:200]}", AGAIN) from error
    for name, (shape, kind) in kinds.items():
        first, last = spans[name]
        whole = type(first) is int and type(last) is int and first >= 0
        if not whole or last - first != math.prod(shape) * READABLE[kind].itemsize:
            raise UploadError(f"the number of bytes of the tensor {name[:100]!r} does not match its shape", AGAIN)
    return kinds, spans


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    if len(dict(pairs)) != len(pairs):
        raise ValueError("a name occurs twice")
    return dict(pairs)


def _checked(entry: Mapping[str, Any]) -> tuple[tuple[int, ...], str]:
    if entry["dtype"] not in DTYPES:
        raise ValueError(f"the type {entry['dtype']} is not supported; save the weights as F32, F16 or BF16")
    shape = entry["shape"]
    if len(shape) > 16 or not all(type(length) is int and 0 <= length < 2**40 for length in shape):
        raise ValueError("a shape is invalid")
    return tuple(shape), DTYPES[entry["dtype"]]


def _check_cover(spans: Mapping[str, tuple[int, int]], size: int) -> None:
    place = 0
    for first, last in sorted(spans.values()):
        if first != place:
            raise UploadError("the safetensors header leaves a gap between tensors, or has two overlap", AGAIN)
        place = last
    if place > size:
        raise UploadError(f"the safetensors file is cut short: {place - size} bytes are missing", AGAIN)
    if place < size:
        raise UploadError(f"the safetensors file has {size - place} extra bytes after its last tensor", AGAIN)


def _strides(shape: tuple[int, ...]) -> tuple[int, ...]:
    """Strides of a contiguous tensor."""
    return tuple(math.prod(shape[index + 1 :]) for index in range(len(shape)))
