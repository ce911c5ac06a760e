"""Folding: nodes that read constants alone are computed once, by ONNX's own reference implementation."""

import math
from typing import Any

import numpy as np

from worker.distillation.programs.onnx.building import NoTranslation
from worker.distillation.programs.onnx.node import Constant, Context, Integers, Operand

BROADCAST = ("Add", "Sub", "Mul", "Div", "Mod", "Equal", "Greater", "Less", "And", "Or", "Where", "Min", "Max", "Pow")
"""Operations whose result has the shape that its inputs have together."""
MOVED = (
    "Transpose", "Reshape", "Squeeze", "Unsqueeze", "Slice", "Cast", "ScatterND", "Not", "Neg", "Sqrt", "Reciprocal", "Exp",
    "Abs", "Floor", "Ceil",
)  # fmt: skip
"""Operations whose result has at most as many numbers as the first input."""
LARGEST_NUMBER = 8
"""Bytes of a number."""


def folded(context: Context) -> Constant | None:
    """The result of a node that reads constants alone; None if it reads others, or is not folded.

    Raises:
        NoTranslation: the node cannot be computed.
        UploadError: its result needs more memory than is left for constants.
    """
    if (
        context.node.op_type not in (*BROADCAST, *MOVED, "Concat", "Expand", "GatherND")
        or len(context.node.output) != 1
    ):
        return None
    arrays = [_array(each) for each in context.operands]
    if not any(each is not None for each in arrays) or any(
        array is None and operand is not None for array, operand in zip(arrays, context.operands, strict=True)
    ):
        return None
    context.program.afford(_most(context.node.op_type, [each for each in arrays if each is not None]))
    return context.constant(_computed(context, arrays))


def only_folded(_context: Context) -> Operand:
    """The rule of an operation that is computed of constants alone."""
    raise NoTranslation("writes into a result")


def _array(operand: Operand) -> Any:
    if isinstance(operand, Constant):
        return np.asarray(operand.array)
    if isinstance(operand, Integers) and all(isinstance(each, int) for each in operand.items):
        array = np.array(operand.items, dtype=np.int64)
        return array[0] if operand.flat else array
    return None


def _most(operation: str, arrays: list[Any]) -> int:
    """The most bytes that a result has."""
    if operation in BROADCAST:
        return LARGEST_NUMBER * math.prod(np.broadcast_shapes(*(np.shape(each) for each in arrays)))
    if operation == "Expand":
        wanted = tuple(int(each) for each in np.reshape(arrays[1], -1))
        return LARGEST_NUMBER * math.prod(np.broadcast_shapes(np.shape(arrays[0]), wanted))
    if operation == "GatherND":
        picked = np.shape(arrays[1])
        return LARGEST_NUMBER * math.prod((*picked[:-1], *np.shape(arrays[0])[picked[-1] :]))
    return LARGEST_NUMBER * sum(int(np.size(each)) for each in (arrays if operation == "Concat" else arrays[:1]))


def _computed(context: Context, arrays: list[Any]) -> Any:
    import onnx
    from onnx.reference import ReferenceEvaluator

    node = onnx.NodeProto()
    node.CopyFrom(context.node)
    del node.input[:], node.output[:]
    names = ["" if each is None else f"i{number}" for number, each in enumerate(arrays)]
    node.input.extend(names)
    node.output.append("o")
    values = [onnx.ValueInfoProto(name=name) for name in names if name]
    graph = onnx.helper.make_graph([node], "folded", values, [onnx.ValueInfoProto(name="o")])
    model = onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", context.opset)])
    given = {name: np.asarray(each) for name, each in zip(names, arrays, strict=True) if name}
    try:
        with np.errstate(all="ignore"):
            (result,) = ReferenceEvaluator(model).run(None, given)
    except Exception as error:  # whatever Python raises on these numbers
        raise NoTranslation(f"cannot be computed ({str(error)[:200]})") from error
    return np.ascontiguousarray(result) if np.ndim(result) else np.asarray(result)
