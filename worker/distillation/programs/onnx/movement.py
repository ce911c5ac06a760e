"""Rules for operations that move numbers and compute none."""

from typing import Any

import numpy as np

from worker.distillation.programs.format import Value
from worker.distillation.programs.onnx import integers
from worker.distillation.programs.onnx.building import NoTranslation
from worker.distillation.programs.onnx.node import Context, Integers, Operand


def flatten(context: Context) -> Operand:
    """Flatten: a matrix of the dimensions before one and of those from it on."""
    x = context.tensor(0)
    rank = len(context.shape(x))
    axis = context.get("axis", 1) % (rank + 1)
    if axis == 0:
        return context.add("aten.unsqueeze.default", context.add("aten.flatten.using_ints", x, 0), 0)
    rows = context.add("aten.flatten.using_ints", x, 0, axis - 1) if axis > 1 else x
    return (
        context.add("aten.flatten.using_ints", rows, 1)
        if axis < rank
        else context.add("aten.unsqueeze.default", rows, 1)
    )


def reshape(context: Context) -> Operand:
    """Reshape."""
    wanted = context.get("shape") if context.opset < 5 else context.integers(1)
    if found := integers.as_integers(context.operand(0)):
        return Integers(found.items, flat=not wanted)
    x = context.tensor(0)
    if context.get("allowzero", 0) and 0 in wanted:
        raise NoTranslation("makes an empty tensor")
    sizes = [context.size(x, at) if isinstance(each, int) and each == 0 else each for at, each in enumerate(wanted)]
    return context.add("aten.reshape.default", x, sizes)


def transpose(context: Context) -> Operand:
    """Transpose; one that undoes the one before gives what that one read."""
    x = context.tensor(0)
    order = list(context.get("perm") or reversed(range(len(context.shape(x)))))
    before = context.program.nodes[x.number - 1] if isinstance(x, Value) and x.number else None
    if before is not None and before.operation.name == "aten.permute.default":
        given, first = before.arguments
        if [first[each] for each in order] == sorted(order):
            return given
    return context.add("aten.permute.default", x, order)


def _axes(context: Context) -> list[int] | None:
    if context.opset < 13:
        given = context.get("axes")
        return None if given is None else list(given)
    return context.static(1) if context.has(1) else None


def squeeze(context: Context) -> Operand:
    """Squeeze."""
    if found := integers.as_integers(context.operand(0)):
        return Integers(found.items, flat=True)
    x, axes = context.tensor(0), _axes(context)
    if axes is None:
        axes = [at for at, length in enumerate(context.shape(x)) if length == 1]
    return context.add("aten.squeeze.dims", x, axes)


def unsqueeze(context: Context) -> Operand:
    """Unsqueeze."""
    found = integers.as_integers(context.operand(0))
    if found is not None and found.flat:
        return Integers(found.items)
    x, axes = context.tensor(0), _axes(context) or []
    rank = len(context.shape(x)) + len(axes)
    for axis in sorted(each % rank for each in axes):
        x = context.add("aten.unsqueeze.default", x, axis)
    return x


def concat(context: Context) -> Operand:
    """Concat."""
    parts = integers.all_integers(context)
    if parts is not None:
        return integers.joined(parts)
    return context.add(
        "aten.cat.default", [context.tensor(at) for at in range(len(context.operands))], context.get("axis")
    )


def split(context: Context) -> Any:
    """Split."""
    x = context.tensor(0)
    axis = context.get("axis", 0)
    count = len(context.node.output)
    sizes = context.get("split") if context.opset < 13 else (context.static(1) if context.has(1) else None)
    length = context.shape(x)[axis]
    if sizes is None:
        if length is None:
            raise NoTranslation("splits the batch")
        size = -(-length // count)
        sizes = [min(size, length - at * size) for at in range(count)]
    parts = context.add("aten.split_with_sizes.default", x, list(sizes), axis)
    return [context.add("operator.getitem", parts, at) for at in range(count)]


def slice(context: Context) -> Operand:
    """Slice."""
    found = integers.as_integers(context.operand(0))
    if found is not None and not found.flat:
        return integers.sliced(context, found)
    x = context.tensor(0)
    if context.opset < 10:
        starts = context.get("starts")
        ends = context.get("ends")
        axes = context.get("axes")
        steps = None
    else:
        starts, ends = context.integers(1), context.integers(2)
        axes, steps = (context.static(at) if context.has(at) else None for at in (3, 4))
    axes, steps = axes or list(range(len(starts))), steps or [1] * len(starts)
    for start, end, axis, step in zip(starts, ends, axes, steps, strict=True):
        if step < 1:
            x = _backwards(context, x, (start, end, axis, step))
            continue
        x = context.add("aten.slice.Tensor", x, axis, start, end, step)
    return x


def _backwards(context: Context, x: Any, part: tuple[Any, ...]) -> Any:
    start, end, axis, step = part
    length = context.shape(x)[axis]
    if step != -1 or length is None or start not in (-1, length - 1) or end > -length - 1:
        raise NoTranslation("goes backwards over a part")
    return context.add("aten.flip.default", x, [axis])


def gather(context: Context) -> Operand:
    """Gather."""
    found = integers.as_integers(context.operand(0))
    if found is not None and not found.flat:
        return integers.gather(context, found)
    x, axis = context.tensor(0), context.get("axis", 0)
    if isinstance(context.operand(1), Value):
        return _gather_computed(context, x, axis)
    index = _places(np.asarray(context.array(1)), context.shape(x)[axis])
    if index.ndim == 0:
        return context.add("aten.select.int", x, axis, int(index))
    picked = context.add("aten.index_select.default", x, axis, context.store(index.reshape(-1), "index", "constant"))
    return picked if index.ndim == 1 else context.add("aten.unflatten.int", picked, axis, list(index.shape))


def _gather_computed(context: Context, x: Any, axis: int) -> Any:
    index = context.tensor(1)
    picked = context.add("aten.index_select.default", x, axis, context.add("aten.reshape.default", index, [-1]))
    of_x, of_index = (list(range(len(context.shape(each)))) for each in (x, index))
    axis %= len(of_x)
    sizes = [context.size(x, at) for at in of_x[:axis]] + [context.size(index, at) for at in of_index]
    return context.add("aten.reshape.default", picked, sizes + [context.size(x, at) for at in of_x[axis + 1 :]])


def gather_elements(context: Context) -> Operand:
    """GatherElements by constant places."""
    x, axis = context.tensor(0), context.get("axis", 0)
    index = _places(np.asarray(context.array(1)), context.shape(x)[axis])
    return context.add("aten.gather.default", x, axis, context.store(index, "index", "constant"))


def _places(index: Any, length: int | None) -> Any:
    """Places within a dimension, counted from its beginning."""
    if length is None or index.size == 0 or index.min() < -length or index.max() >= length:
        raise NoTranslation("picks by an index that is out of range")
    return index.astype(np.int64) % length


def triangle(context: Context) -> Operand:
    """Trilu."""
    name = "triu" if context.get("upper", 1) else "tril"
    return context.add(f"aten.{name}.default", context.tensor(0), int(context.number(1, 0)))


def expand(context: Context) -> Operand:
    """Expand."""
    x, wanted = context.tensor(0), context.integers(1)
    shape = context.shape(x)
    lengths = [-1 if each == 1 and at >= len(wanted) - len(shape) else each for at, each in enumerate(wanted)]
    if len(lengths) < len(shape):
        lengths = [-1] * (len(shape) - len(lengths)) + lengths
    return context.add("aten.expand.default", x, lengths)


def tile(context: Context) -> Operand:
    """Tile."""
    return context.add("aten.repeat.default", context.tensor(0), context.integers(1))


def depth_to_space(context: Context) -> Operand:
    """DepthToSpace in both orders of channels."""
    x, block = context.tensor(0), context.get("blocksize")
    if context.get("mode", "DCR") == "DCR":
        x = _channels_turned(context, x, [block * block, -1])
    return context.add("aten.pixel_shuffle.default", x, block)


def space_to_depth(context: Context) -> Operand:
    """SpaceToDepth."""
    block = context.get("blocksize")
    return _channels_turned(
        context, context.add("aten.pixel_unshuffle.default", context.tensor(0), block), [-1, block * block]
    )


def _channels_turned(context: Context, x: Any, sizes: list[int]) -> Any:
    """The channels read as a matrix of `sizes` and turned."""
    turned = context.add("aten.transpose.int", context.add("aten.unflatten.int", x, 1, sizes), 1, 2)
    return context.add("aten.flatten.using_ints", turned, 1, 2)
