"""NumPy arrays and scalars in pickles, read as tensors without NumPy."""

from typing import Any

from worker.distillation.uploads.weights_file.inert import Global, Made
from worker.distillation.uploads.weights_file.leaves import READABLE, Leaf, Plain, Unreadable, lengths

NAMES = {
    "f8": "float64", "f4": "float32", "f2": "float16", "i8": "int64", "i4": "int32", "i2": "int16", "i1": "int8",
    "u1": "uint8", "u2": "uint16", "u4": "uint32", "u8": "uint64", "b1": "bool", "c8": "complex64", "c16": "complex128",
}  # fmt: skip
"""NumPy's type codes without their byte order, and torch's names for them."""
AS_FLOATS = "Save the arrays as little-endian float32 with `array.astype('<f4')`, and upload that file."
_RECONSTRUCT = {f"numpy.{core}.multiarray._reconstruct" for core in ("core", "_core")}
_FROM_BUFFER = {f"numpy.{core}.numeric._frombuffer" for core in ("core", "_core")}


def array_of(node: Made) -> Leaf | None:
    """The tensor of a pickled `numpy.ndarray`; None for other objects."""
    path = node.path
    if path in _RECONSTRUCT and type(node.state) is tuple and len(node.state) == 5:
        _, shape, dtype, column_major, data = node.state
        return _array(shape, dtype, column_major is True or column_major == 1, data)
    if path in _FROM_BUFFER and len(node.args) == 4:
        data, dtype, shape, order = node.args
        return _array(shape, dtype, order == "F", data)
    return None


def _array(shape: Any, dtype: Any, column_major: bool, data: Any) -> Leaf:
    known, size = type_of(dtype), lengths(shape)
    if known is None or size is None:
        message = "the checkpoint contains a NumPy array with an unsupported type or byte order"
        return Unreadable(message, AS_FLOATS)
    return Plain(size, READABLE[known], column_major, lambda: bytes_of(data))


def type_of(dtype: Any) -> str | None:
    """Torch's name of a pickled `numpy.dtype`; None if it is not supported."""
    if type(dtype) is not Made or dtype.path != "numpy.dtype" or not dtype.args:
        return None
    state, code = dtype.state, dtype.args[0]
    order = state[1] if type(state) is tuple and len(state) > 1 else "|"
    if type(code) is not str or order not in ("<", "|", "=") or code[:1] == ">":
        return None
    return NAMES.get(code.lstrip("<|="))


def bytes_of(data: Any) -> bytes:
    """Bytes in a pickle: bytes, a Python 2 string, or a call that encodes text."""
    if type(data) is bytes:
        return data
    if type(data) is Made and data.path == "_codecs.encode" and data.args and type(data.args[0]) is str:
        data = data.args[0]
    if type(data) is Made and type(data.of) is Global and data.path in ("builtins.bytearray", "builtins.bytes"):
        return bytes_of(data.args[0]) if data.args else b""
    try:
        return data.encode("latin-1") if type(data) is str else b""
    except UnicodeEncodeError:
        return b""
