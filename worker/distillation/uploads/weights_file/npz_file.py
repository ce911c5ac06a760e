"""NumPy's npz format: a zip of arrays, whose names are the tensors' names. Arrays of objects are pickles and are refused."""

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
        UploadError: the zip file or an array is damaged, or too large when uncompressed.
    """
    with zipfile.ZipFile(file) as archive:
        left = limits.unpacked_bytes
        arrays = {}
        for entry in listed:
            data = unpacked(archive, entry, limits, left)
            left -= len(data)
            name = entry.filename.removesuffix(".npy")
            if name in arrays:
                raise UploadError(
                    f"the npz file contains the name {name[:100]!r} twice", "Save it again with `numpy.savez`."
                )
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
        raise UploadError(f"the array {name[:100]!r} has the type {kind!r:.40}, which is not supported", AS_FLOATS)
    if math.prod(shape) * READABLE[known].itemsize != len(data) - start:
        raise UploadError(f"the number of bytes of the array {name[:100]!r} does not match its shape", AS_FLOATS)
    return Plain(shape, READABLE[known], header.get("fortran_order") is True, lambda: data[start:])


def _header(data: bytes) -> tuple[dict[str, Any], int]:
    """The header of an array (a Python literal), and the offset of its elements."""
    stream = io.BytesIO(data)
    if stream.read(6) != MAGIC:
        raise ValueError("it does not begin like an npy file")
    major = stream.read(2)[0]
    length = struct.unpack("<H", stream.read(2))[0] if major == 1 else struct.unpack("<I", stream.read(4))[0]
    if length > HEADER_BYTES:
        raise ValueError(f"its header has {length} bytes; the maximum is {HEADER_BYTES}")
    header = ast.literal_eval(stream.read(length).decode("latin-1"))
    if type(header) is not dict:
        raise ValueError("its header is not a dictionary")
    return header, stream.tell()
