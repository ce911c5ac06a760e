"""Arrays in NumPy's file format, read without unpickling."""

import io
import math
import struct
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path, PurePosixPath
from typing import IO, Any

from worker.distillation.data.reading.archives.archive import Archive
from worker.distillation.errors import UploadError
from worker.distillation.limits import UploadLimits

MAGIC = b"\x93NUMPY"
HEADER_BYTES = 65536
MOST_DIMENSIONS = 16
SINGLE = PurePosixPath("images.npy")


class SingleArray(Archive):
    """An uploaded `.npy` file, as the only entry of an archive."""

    def __init__(self, file: IO[bytes], limits: UploadLimits):
        super().__init__(limits)
        self._file = file
        self.files = {SINGLE: file.seek(0, 2)}
        self.check_total()

    def head(self, path: PurePosixPath, count: int) -> bytes:
        self._file.seek(0)
        return self._file.read(count)

    def _read(self, path: PurePosixPath, most: int) -> bytearray:
        self._file.seek(0)
        return bytearray(self._file.read(most))


@contextmanager
def open_array(path: Path, limits: UploadLimits) -> Iterator[SingleArray]:
    """A `.npy` file as an archive.

    Raises:
        UploadError: it is too large.
    """
    with path.open("rb") as file:
        yield SingleArray(file, limits)


def read_array(archive: Archive, file: PurePosixPath, limits: UploadLimits) -> Any:
    """One array of numbers or text; the shape in its header is compared with its size before memory is allocated.

    Raises:
        UploadError: it is damaged, or holds Python objects.
    """
    import numpy as np

    data = archive.read(file, limits.inflated_bytes)
    stream = io.BytesIO(data)
    try:
        version = np.lib.format.read_magic(stream)
        readers = {(1, 0): np.lib.format.read_array_header_1_0, (2, 0): np.lib.format.read_array_header_2_0}
        if version not in readers:
            raise ValueError(f"format version {version} is not supported")
        shape, fortran, kind = readers[version](stream, max_header_size=HEADER_BYTES)
    except (ValueError, TypeError, SyntaxError, EOFError, struct.error, RecursionError, MemoryError) as error:
        raise UploadError(
            f"{file} is not a NumPy array: {str(error)[:200]}", "Save the file again with `numpy.savez`."
        ) from error
    if kind.hasobject or kind.kind not in "buifUS":
        raise UploadError(
            f"{file} has the unsupported type {kind}; Python objects are not read",
            "Save arrays of uint8 or float32, and names as arrays of strings.",
        )
    if (
        len(shape) > MOST_DIMENSIONS
        or any(length < 0 for length in shape)
        or math.prod(shape) * kind.itemsize != len(data) - stream.tell()
    ):
        raise UploadError(
            f"the shape {shape} in the header of {file} does not match the size of its data",
            "Save the file again with `numpy.savez`.",
        )
    flat = (
        np.frombuffer(data, dtype=kind, offset=stream.tell())
        if math.prod(shape) and kind.itemsize
        else np.empty(0, kind)
    )
    return flat.reshape(shape, order="F" if fortran else "C")
