"""Rules for integers that shapes are computed with, which a program has as numbers and not as tensors."""

import operator
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from worker.distillation.programs.format import DTYPES, Special, Value
from worker.distillation.programs.onnx.building import NoTranslation
from worker.distillation.programs.onnx.node import INTEGERS_AT_MOST, Constant, Context, Integers, Operand

_PYTHON: dict[str, Callable[[int, int], int]] = {
    "add": operator.add, "sub": operator.sub, "mul": operator.mul, "floordiv": operator.floordiv,
    "mod": operator.mod,
}  # fmt: skip


def as_integers(operand: Operand) -> Integers | None:
    """An operand as integers, if it is a shape or a short constant of whole numbers."""
    if isinstance(operand, Integers):
        return operand
    if isinstance(operand, Constant):
        array = np.asarray(operand.array)
        if array.dtype.kind in "iub" and array.ndim <= 1 and array.size <= INTEGERS_AT_MOST:
            return Integers(tuple(int(each) for each in array.reshape(-1)), flat=array.ndim == 0)
    return None


def all_integers(context: Context) -> list[Integers] | None:
    """The operands as integers, if all of them are and one is a shape."""
    found = [as_integers(each) for each in context.operands if each is not None]
    if not found or any(each is None for each in found):
        return None
    return [each for each in found if each is not None]


def arithmetic(context: Context, name: str) -> Operand | None:
    """A sum, product and so on of two lists of integers; None if the operands are others."""
    operands = all_integers(context)
    if operands is None or len(operands) != 2:
        return None
    one, other = operands
    length = max(len(one.items), len(other.items))
    if {len(one.items), len(other.items)} - {1, length}:
        raise NoTranslation("computes with shapes of different lengths")
    pairs = zip(_repeated(one.items, length), _repeated(other.items, length), strict=True)
    return Integers(tuple(_combine(context, name, a, b) for a, b in pairs), one.flat and other.flat)


def _repeated(items: Sequence[Any], length: int) -> Sequence[Any]:
    return items if len(items) == length else list(items) * length


def _combine(context: Context, name: str, one: Any, other: Any) -> Any:
    if isinstance(one, Value) or isinstance(other, Value):
        return context.add(f"operator.{name}", one, other)
    if name == "floordiv":  # ONNX cuts towards zero
        return int(one / other) if abs(one) < 2**52 else one // other
    result = _PYTHON[name](one, other)
    if abs(result) > 2**62:
        raise NoTranslation("computes an integer that is too large")
    return result


def equal(context: Context) -> Operand | None:
    """Equal of two shapes, as ones and zeros; a length that depends on the batch equals nothing below 1."""
    operands = all_integers(context)
    if operands is None or len(operands) != 2:
        return None
    length = max(len(each.items) for each in operands)
    pairs = zip(*(_repeated(each.items, length) for each in operands), strict=True)
    return Integers(tuple(_equal(one, other) for one, other in pairs), all(each.flat for each in operands))


def _equal(one: Any, other: Any) -> int:
    computed = [each for each in (one, other) if isinstance(each, Value)]
    if not computed:
        return int(one == other)
    if len(computed) == 2 or max(each for each in (one, other) if isinstance(each, int)) > 0:
        raise NoTranslation("compares a length that depends on the batch")
    return 0


def where(context: Context) -> Operand | None:
    """Where among shapes."""
    operands = all_integers(context)
    if operands is None or len(operands) != 3:
        return None
    length = max(len(each.items) for each in operands)
    rows = zip(*(_repeated(each.items, length) for each in operands), strict=True)
    return Integers(tuple(one if chosen else other for chosen, one, other in rows))


def shape(context: Context) -> Operand:
    """Shape: the lengths of a tensor."""
    given = context.operand(0)
    if isinstance(given, Integers):
        return Integers(() if given.flat else (len(given.items),))
    if isinstance(given, Constant):
        return Integers(tuple(int(each) for each in np.shape(given.array)))
    operand = context.tensor(0)
    rank = len(context.shape(operand))
    start, end = context.get("start", 0), context.get("end", rank)
    return Integers(tuple(context.size(operand, at) for at in range(rank)[start:end]))


def constant_of_shape(context: Context) -> Operand:
    """ConstantOfShape: one number, so many times."""
    if any(isinstance(each, Value) for each in context.integers(0)):
        return _full(context)
    lengths = context.static(0)
    count = int(np.prod(lengths, dtype=object)) if lengths else 1
    if count < 0:
        raise NoTranslation("makes a constant of a negative length")
    array = _filling(context)
    context.program.spend(count * array.itemsize)
    return Constant(np.full(lengths, array.reshape(-1)[0], array.dtype))


def _filling(context: Context) -> Any:
    value = context.get("value")
    return np.zeros(1, np.float32) if value is None else _array(value)


def _full(context: Context) -> Operand:
    """One number in a shape that depends on the batch."""
    array = _filling(context)
    kind = "float32" if array.dtype.kind == "f" else str(array.dtype)
    if kind not in DTYPES:
        raise NoTranslation(f"makes numbers of type {kind}")
    return context.add(
        "aten.full.default", context.integers(0), array.reshape(-1)[0].item(), dtype=Special("dtype", kind)
    )


def constant(context: Context) -> Operand:
    """Constant: numbers within the graph."""
    kinds = {"value_int": np.int64, "value_ints": np.int64, "value_float": np.float32, "value_floats": np.float32}
    if context.get("value") is not None:
        return Constant(_array(context.get("value")))
    for name, kind in kinds.items():
        if context.get(name) is not None:
            return Constant(np.array(context.get(name), dtype=kind))
    raise NoTranslation("holds texts")


def _array(tensor: Any) -> Any:
    import onnx

    return onnx.numpy_helper.to_array(tensor)


def integer_range(context: Context) -> Operand:
    """Range."""
    lengths = [as_integers(each) for each in context.operands]
    parts = [each.items[0] for each in lengths if each is not None and len(each.items) == 1]
    if len(parts) == 3 and any(isinstance(each, Value) for each in parts):
        return context.add("aten.arange.start_step", *parts)
    start, limit, step = (context.number(at) for at in range(3))
    if step == 0 or abs((limit - start) / step) > INTEGERS_AT_MOST:
        raise NoTranslation("counts too far")
    kind = np.int64 if all(isinstance(each, int) for each in (start, limit, step)) else np.float32
    return Constant(np.arange(start, limit, step, dtype=kind))


def gather(context: Context, items: Integers) -> Operand:
    """Gather from a shape."""
    index = as_integers(context.operand(1))
    if index is None or not all(isinstance(each, int) for each in index.items):
        raise NoTranslation("picks lengths by computed numbers")
    return Integers(tuple(items.items[each] for each in index.items), index.flat)


def sliced(context: Context, items: Integers) -> Operand:
    """Slice of a shape."""
    if context.opset < 10:
        (start,), (end,), step = context.get("starts"), context.get("ends"), 1
    else:
        (start,), (end,) = context.static(1), context.static(2)
        step = context.static(4)[0] if context.has(4) else 1
    return Integers(items.items[start:end:step])


def joined(parts: Sequence[Integers]) -> Operand:
    """Concat of shapes."""
    found = tuple(each for part in parts for each in part.items)
    if len(found) > INTEGERS_AT_MOST:
        raise NoTranslation("makes too long a list")
    return Integers(found)
