"""NumPy's npz: a zip of arrays, whose names are those of the tensors. Objects in arrays are pickles and are refused."""

import ast
import io
import math
import struct
import zipfile
from typing import Any, BinaryIO

from worker.distillation.errors import UploadError
from worker.distillation.limits import UploadLimits
from worker.distillation.uploads.weights_file.contents import Contents
from worker.distillation.uploads.weights_file.leaves import READABLE, Leaf, Plain, lengths
from worker.distillation.uploads.weights_file.numpy_arrays import AS_FLOATS, NAMES
from worker.distillation.uploads.weights_file.unpacking import unpacked

MAGIC = b"\x93NUMPY"
HEADER_BYTES = 10_000


def read(file: BinaryIO, listed: list[zipfile.ZipInfo], limits: UploadLimits) -> Contents:
    """The arrays by name, without `.npy`.

    Raises:
        UploadError: the zip file or an array is damaged, or inflates to more than is read.
    """
    with zipfile.ZipFile(file) as archive:
        left = limits.unpacked_bytes
        arrays = {}
        for entry in listed:
            data = unpacked(archive, entry, limits, left)
            left -= len(data)
            name = entry.filename.removesuffix(".npy")
            if name in arrays:
                raise UploadError(f"the npz file holds {name[:100]!r} twice", "Write it again with `numpy.savez`.")
            arrays[name] = _array(name, data)
    return Contents("npz", arrays)


def _array(name: str, data: bytes) -> Leaf:
    try:
        header, start = _header(data)
        shape, kind = lengths(header["shape"]), header["descr"]
        known = NAMES.get(kind.lstrip("<|=")) if type(kind) is str and kind[:1] != ">" else None
    except (
        ValueError,
        SyntaxError,
        KeyError,
        TypeError,
        LookupError,
        struct.error,
        RecursionError,
        MemoryError,
    ) as error:
        raise UploadError(f"the array {name[:100]!r} is malformed: {str(error)[:100]}", AS_FLOATS) from error
    if shape is None or known is None:
        raise UploadError(f"the array {name[:100]!r} holds objects or numbers of type {kind!r:.40}", AS_FLOATS)
    if math.prod(shape) * READABLE[known].itemsize != len(data) - start:
        raise UploadError(f"the array {name[:100]!r} has not the bytes that its shape asks for", AS_FLOATS)
    return Plain(shape, READABLE[known], header.get("fortran_order") is True, lambda: data[start:])


def _header(data: bytes) -> tuple[dict[str, Any], int]:
    """The description that stands before the numbers, a literal of Python, and where the numbers begin."""
    stream = io.BytesIO(data)
    if stream.read(6) != MAGIC:
        raise ValueError("it does not begin as an array does")
    major = stream.read(2)[0]
    length = struct.unpack("<H", stream.read(2))[0] if major == 1 else struct.unpack("<I", stream.read(4))[0]
    if length > HEADER_BYTES:
        raise ValueError(f"its header has {length} bytes")
    header = ast.literal_eval(stream.read(length).decode("latin-1"))
    if type(header) is not dict:
        raise ValueError("its header is no dictionary")
    return header, stream.tell()
