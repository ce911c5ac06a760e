"""Lazy tensors in a file: descriptions whose elements are read only on demand.

All have a `shape`, a `dtype` and an `identity` (equal for several names of one tensor). `read` copies the tensor's own
elements and no others of its storage.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, BinaryIO, Protocol

import torch
from torch import Tensor

from worker.distillation.errors import UploadError

MOST_DIMENSIONS = 16
LONGEST = 2**40
"""Largest length of a dimension."""
READABLE = {
    **{str(dtype).removeprefix("torch."): dtype for dtype in (
        torch.float64, torch.float32, torch.float16, torch.bfloat16, torch.int64, torch.int32, torch.int16, torch.int8,
        torch.uint8, torch.uint16, torch.uint32, torch.uint64, torch.bool, torch.complex64, torch.complex128,
        torch.float8_e4m3fn, torch.float8_e5m2, torch.float8_e4m3fnuz, torch.float8_e5m2fnuz,
    )}
}  # fmt: skip
"""Dtypes by name. checked_tensor.py decides which of them are accepted as weights."""
ASK_FOR_DENSE = "Convert all tensors to dense tensors on the CPU, save them with `torch.save(network.state_dict(), path)`, and upload that file."


class Leaf(Protocol):
    """A tensor that can be read."""

    @property
    def shape(self) -> tuple[int, ...]: ...
    @property
    def dtype(self) -> torch.dtype: ...
    @property
    def identity(self) -> Any: ...
    def read(self) -> Tensor:
        """The elements, in new memory.

        Raises:
            UploadError: they cannot be read.
        """


def numel(leaf: Leaf) -> int:
    """Number of elements."""
    return math.prod(leaf.shape)


@dataclass(frozen=True, eq=False, slots=True)
class Span:
    """A range of bytes of a file."""

    file: BinaryIO
    start: int
    size: int

    def bytes_of(self, start: int, size: int) -> bytearray:
        """A copy of some of the bytes.

        Raises:
            UploadError: they are outside the range, or the file ends before.
        """
        if start < 0 or size < 0 or start + size > self.size:
            raise UploadError("a tensor claims more elements than the file stores", ASK_FOR_DENSE)
        self.file.seek(self.start + start)
        data = bytearray(size)
        view, filled = memoryview(data), 0
        while filled < size:
            count = self.file.readinto(view[filled:])  # type: ignore[attr-defined]  # every binary file has it
            if not count:
                raise UploadError(f"the file is cut short: {size - filled} bytes are missing", "Upload it again.")
            filled += count
        return data


@dataclass(frozen=True, eq=False, slots=True)
class Strided:
    """A view of a storage: `offset` and `strides` count elements. `span` returns the range of the storage's bytes."""

    shape: tuple[int, ...]
    strides: tuple[int, ...]
    offset: int
    dtype: torch.dtype
    key: str
    span: Callable[[], Span]

    @property
    def identity(self) -> Any:
        return (self.key, self.offset, self.shape, self.strides, self.dtype)

    def read(self) -> Tensor:
        count = math.prod(self.shape)
        span = self.span()
        size = self.dtype.itemsize
        if not count:
            return torch.empty(self.shape, dtype=self.dtype)
        reach = sum((length - 1) * stride for length, stride in zip(self.shape, self.strides, strict=True)) + 1
        if (self.offset + reach) * size > span.size or count * size > span.size:
            raise UploadError(
                f"a tensor of shape {self.shape} claims more elements than the checkpoint stores", ASK_FOR_DENSE
            )
        numbers = torch.frombuffer(span.bytes_of(self.offset * size, reach * size), dtype=self.dtype)
        return numbers.as_strided(self.shape, self.strides).contiguous()


@dataclass(frozen=True, eq=False, slots=True)
class Plain:
    """A tensor whose bytes the pickle itself contains, such as a NumPy array; `data` returns them."""

    shape: tuple[int, ...]
    dtype: torch.dtype
    column_major: bool
    data: Callable[[], bytes]

    @property
    def identity(self) -> Any:
        return id(self)

    def read(self) -> Tensor:
        data = self.data()
        if len(data) != math.prod(self.shape) * self.dtype.itemsize:
            needed = math.prod(self.shape) * self.dtype.itemsize
            raise UploadError(
                f"an array of shape {self.shape} has {len(data)} bytes instead of {needed}", ASK_FOR_DENSE
            )
        if not data:
            return torch.empty(self.shape, dtype=self.dtype)
        numbers = torch.frombuffer(bytearray(data), dtype=self.dtype)
        if self.column_major:
            return numbers.reshape(self.shape[::-1]).permute(*reversed(range(len(self.shape)))).contiguous()
        return numbers.reshape(self.shape)


@dataclass(frozen=True, eq=False, slots=True)
class Held:
    """A tensor that is already in memory."""

    tensor: Tensor

    @property
    def shape(self) -> tuple[int, ...]:
        return tuple(self.tensor.shape)

    @property
    def dtype(self) -> torch.dtype:
        return self.tensor.dtype

    @property
    def identity(self) -> Any:
        return id(self.tensor)

    def read(self) -> Tensor:
        return self.tensor.detach().clone(memory_format=torch.contiguous_format)


@dataclass(frozen=True, eq=False, slots=True)
class Computed:
    """A tensor computed from others, such as a weight from its parts; `compute` gets them in order."""

    shape: tuple[int, ...]
    dtype: torch.dtype
    parts: tuple[Leaf, ...]
    compute: Callable[..., Tensor]

    @property
    def identity(self) -> Any:
        return (id(self.compute), *(part.identity for part in self.parts))

    def read(self) -> Tensor:
        return self.compute(*(part.read() for part in self.parts)).to(self.dtype)


@dataclass(frozen=True, eq=False, slots=True)
class Unreadable:
    """A tensor that is not supported; `reason` says why, `hint` what to do."""

    reason: str
    hint: str = ASK_FOR_DENSE
    shape: tuple[int, ...] = ()
    dtype: torch.dtype = torch.float32

    @property
    def identity(self) -> Any:
        return id(self)

    def read(self) -> Tensor:
        raise UploadError(self.reason, self.hint)


LEAVES = (Strided, Plain, Held, Computed, Unreadable)


def lengths(values: Any) -> tuple[int, ...] | None:
    """A shape or strides from a pickle or header: integers within bounds; None if the value is invalid."""
    if type(values) not in (tuple, list) or len(values) > MOST_DIMENSIONS:
        return None
    if not all(type(value) is int and 0 <= value < LONGEST for value in values):
        return None
    return tuple(values)
