"""An assembler of malicious pickles and of files that contain them. Nothing here is ever loaded."""

import io
import pickle
import struct
import zipfile
from dataclasses import dataclass
from typing import Any

MAGIC = 0x1950A86A20F9469CFC6C
SYSTEM = {"protocol_version": 1001, "little_endian": True, "type_sizes": {"short": 2, "int": 4, "long": 4}}
FLOATS = 4
"""Bytes of one float."""


@dataclass(frozen=True)
class Name:
    """A class or function, by a GLOBAL opcode."""

    module: str
    name: str


@dataclass(frozen=True)
class Call:
    """REDUCE of a function with arguments, and BUILD with a state if there is one."""

    of: Any
    args: tuple[Any, ...]
    state: Any = None


@dataclass(frozen=True)
class Stored:
    """A persistent id."""

    identifier: Any


@dataclass(frozen=True)
class Raw:
    """Raw opcodes."""

    opcodes: bytes


def emit(value: Any) -> bytes:
    """Opcodes that push a value on the stack."""
    if isinstance(value, Raw):
        return value.opcodes
    if isinstance(value, Name):
        return b"c%s\n%s\n" % (value.module.encode(), value.name.encode())
    if isinstance(value, Call):
        built = emit(value.state) + b"b" if value.state is not None else b""
        return emit(value.of) + emit(value.args) + b"R" + built
    if isinstance(value, Stored):
        return emit(value.identifier) + b"Q"
    if isinstance(value, dict):
        return b"}(" + b"".join(emit(key) + emit(each) for key, each in value.items()) + b"u"
    if isinstance(value, list):
        return b"](" + b"".join(map(emit, value)) + b"e"
    if isinstance(value, tuple):
        return b"(" + b"".join(map(emit, value)) + b"t"
    return _scalar(value)


def _scalar(value: Any) -> bytes:
    if value is None or isinstance(value, bool):
        return {None: b"N", True: b"\x88", False: b"\x89"}[value]
    if isinstance(value, int):
        data = value.to_bytes(value.bit_length() // 8 + 1, "little", signed=True)
        return b"\x8b" + struct.pack("<i", len(data)) + data
    if isinstance(value, bytes):
        return b"B" + struct.pack("<I", len(value)) + value
    text = value.encode()
    return b"X" + struct.pack("<I", len(text)) + text


def storage(key: str = "0", numel: int = 4, kind: str = "FloatStorage") -> Stored:
    return Stored(("storage", Name("torch", kind), key, "cpu", numel))


def tensor(shape: Any = (2, 2), strides: Any = (2, 1), offset: Any = 0, of: Any = None) -> Call:
    """A tensor of four elements by default."""
    args = (of or storage(), offset, shape, strides, False, Call(Name("collections", "OrderedDict"), ()))
    return Call(Name("torch._utils", "_rebuild_tensor_v2"), args)


def pickled(value: Any) -> bytes:
    return b"\x80\x02" + emit(value) + b"."


def zipped(value: Any, storages: dict[str, bytes] | None = None) -> bytes:
    """The zip format with a value, and with the elements 1, 2, 3, 4 as storage `0` by default."""
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w", zipfile.ZIP_STORED) as archive:
        archive.writestr("archive/data.pkl", pickled(value))
        archive.writestr("archive/byteorder", b"little")
        for key, data in (storages or {"0": numbers()}).items():
            archive.writestr(f"archive/data/{key}", data)
    return stream.getvalue()


def legacy(value: Any, numel: int = 4, keys: Any = ("0",), data: bytes | None = None, **system: Any) -> bytes:
    """The old format with a value and the same elements; `numel` is the number of elements that the file claims."""
    heads = b"".join(pickle.dumps(each, protocol=2) for each in (MAGIC, 1001, SYSTEM | system))
    tail = b"".join(struct.pack("<q", numel) + (numbers() if data is None else data) for _ in keys)
    return heads + pickled(value) + pickle.dumps(list(keys), protocol=2) + tail


def numbers() -> bytes:
    return struct.pack("<4f", 1, 2, 3, 4)
