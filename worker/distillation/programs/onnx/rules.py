"""Rules: what translates each operation of ONNX."""

from collections.abc import Mapping

import numpy as np

from worker.distillation.programs.format import Special
from worker.distillation.programs.onnx import folding, integers, layers, movement, pooling
from worker.distillation.programs.onnx.building import NoTranslation
from worker.distillation.programs.onnx.node import Constant, Context, Integers, Operand, Rule


def _simple(operation: str) -> Rule:
    return lambda context: context.add(operation, context.tensor(0))


def _activation(operation: str, **attributes: float) -> Rule:
    """An operation whose further arguments are attributes, by name and default in order."""

    def rule(context: Context) -> Operand:
        given = [context.get(name, default) for name, default in attributes.items()]
        return context.add(operation, context.tensor(0), *given)

    return rule


def _arithmetic(tensors: str, name: str) -> Rule:
    def rule(context: Context) -> Operand:
        found = integers.arithmetic(context, name)
        if found is not None:
            return found
        one, other = context.tensor(0), context.tensor(1)
        if name == "floordiv" and not context.program.dtype(one).is_floating_point:
            return context.add("aten.div.Tensor_mode", one, other, rounding_mode="trunc")
        return context.add(tensors, one, other)

    return rule


def _compare(operation: str) -> Rule:
    return lambda context: context.add(operation, context.tensor(0), context.tensor(1))


def _variadic(operation: str) -> Rule:
    def rule(context: Context) -> Operand:
        result = context.tensor(0)
        for number in range(1, len(context.operands)):
            result = context.add(operation, result, context.tensor(number))
        return result

    return rule


def _reduce(operation: str) -> Rule:
    def rule(context: Context) -> Operand:
        x = context.tensor(0)
        axes = context.get("axes") or (context.static(1) if context.has(1) else None)
        if not axes and context.get("noop_with_empty_axes", 0):
            return x
        keep = bool(context.get("keepdims", 1))
        return context.add(operation, x, list(axes or range(len(context.shape(x)))), keep)

    return rule


def _norm(order: int) -> Rule:
    def rule(context: Context) -> Operand:
        x = context.tensor(0)
        axes = context.get("axes") or (context.static(1) if context.has(1) else list(range(len(context.shape(x)))))
        return context.add("aten.linalg_vector_norm.default", x, order, list(axes), bool(context.get("keepdims", 1)))

    return rule


def _sum_of_squares(context: Context) -> Operand:
    length = _norm(2)(context)
    return context.add("aten.mul.Tensor", length, length)


def _cumulative_sum(context: Context) -> Operand:
    if context.get("exclusive", 0) or context.get("reverse", 0):
        raise NoTranslation("leaves out its own number or goes backwards")
    return context.add("aten.cumsum.default", context.tensor(0), int(context.number(1)))


def _swish(context: Context) -> Operand:
    x, alpha = context.tensor(0), context.get("alpha", 1.0)
    scaled = x if alpha == 1.0 else context.add("aten.mul.Scalar", x, alpha)
    return context.add("aten.mul.Tensor", x, context.add("aten.sigmoid.default", scaled))


def _remainder(context: Context) -> Operand:
    if context.get("fmod", 0):
        raise NoTranslation("has the sign of its first input")
    return _arithmetic("aten.remainder.Tensor", "mod")(context)


def _clip(context: Context) -> Operand:
    x = context.tensor(0)
    least, most = (
        (context.get("min"), context.get("max")) if context.opset < 11 else (context.number(1), context.number(2))
    )
    if least == 0 and most is None:
        return context.add("aten.relu.default", x)
    if least is not None and most is not None:
        return context.add("aten.hardtanh.default", x, least, most)
    return context.add("aten.clamp.default", x, least, most) if (least, most) != (None, None) else x


def _hard_sigmoid(context: Context) -> Operand:
    alpha, beta = context.get("alpha", 0.2), context.get("beta", 0.5)
    if abs(alpha - 1 / 6) < 1e-6 and beta == 0.5:
        return context.add("aten.hardsigmoid.default", context.tensor(0))
    scaled = context.add("aten.add.Scalar", context.add("aten.mul.Scalar", context.tensor(0), alpha), beta)
    return context.add("aten.clamp.default", scaled, 0, 1)


def _gelu(context: Context) -> Operand:
    return context.add("aten.gelu.default", context.tensor(0), approximate=context.get("approximate", "none"))


def _softmax(operation: str) -> Rule:
    def rule(context: Context) -> Operand:
        x, old = context.tensor(0), context.opset < 13
        rank = len(context.shape(x))
        axis = context.get("axis", 1 if old else -1) % rank
        if old and axis != rank - 1:
            raise NoTranslation("goes over several dimensions")
        return context.add(operation, x, axis)

    return rule


def _prelu(context: Context) -> Operand:
    slope = np.asarray(context.array(1))
    x = context.tensor(0)
    if slope.size not in (1, context.shape(x)[1]) or slope.size != max(slope.shape, default=1):
        raise NoTranslation("has other slopes than one for each channel")
    return context.add("aten.prelu.default", x, context.store(slope.reshape(-1), "weight", "param"))


_TYPES = {
    1: "float32",
    10: "float32",
    16: "float32",
    11: "float64",
    7: "int64",
    6: "int32",
    9: "bool",
    2: "uint8",
    3: "int8",
}


def _cast(context: Context) -> Operand:
    kind = _TYPES.get(context.get("to"))
    operand = context.operand(0)
    if kind is None:
        raise NoTranslation("casts to an unusual type")
    if kind in ("int64", "int32") and isinstance(operand, Integers):
        return operand
    return context.add("aten.to.dtype", context.tensor(0), Special("dtype", kind))


def _where(context: Context) -> Operand:
    found = integers.where(context)
    if found is not None:
        return found
    return context.add("aten.where.self", *(context.tensor(at) for at in range(3)))


def _arg_max(context: Context) -> Operand:
    if context.get("select_last_index", 0):
        raise NoTranslation("takes the last of equals")
    return context.add(
        "aten.argmax.default", context.tensor(0), context.get("axis", 0), bool(context.get("keepdims", 1))
    )


def _einsum(context: Context) -> Operand:
    tensors = [context.tensor(at) for at in range(len(context.operands))]
    return context.add("aten.einsum.default", context.get("equation").replace(" ", ""), tensors)


def _pow(context: Context) -> Operand:
    exponent = context.operand(1)
    if isinstance(exponent, (Constant, Integers)) and np.asarray(context.array(1)).size == 1:
        return context.add("aten.pow.Tensor_Scalar", context.tensor(0), context.number(1))
    return context.add("aten.pow.Tensor_Tensor", context.tensor(0), context.tensor(1))


def _softsign(context: Context) -> Operand:
    x = context.tensor(0)
    return context.add("aten.div.Tensor", x, context.add("aten.add.Scalar", context.add("aten.abs.default", x), 1))


def _equal(context: Context) -> Operand:
    found = integers.equal(context)
    return found if found is not None else context.add("aten.eq.Tensor", context.tensor(0), context.tensor(1))


def _erf_like(context: Context) -> Operand:
    return context.add("aten.erf.default", context.tensor(0))


RULES: Mapping[str, Rule] = {
    "Conv": layers.convolution, "ConvTranspose": layers.transposed_convolution, "Gemm": layers.gemm, "MatMul": layers.matmul,
    "BatchNormalization": layers.batch_normalization, "InstanceNormalization": layers.instance_normalization,
    "LayerNormalization": layers.layer_normalization,
    "LRN": layers.local_response_normalization, "LpNormalization": layers.lp_normalization,
    "RMSNormalization": layers.rms_normalization, "GroupNormalization": layers.group_normalization,
    "MaxPool": pooling.max_pool, "AveragePool": pooling.average_pool, "GlobalAveragePool": pooling.global_average_pool,
    "GlobalMaxPool": pooling.global_max_pool, "Resize": layers.resize, "Upsample": layers.resize, "Pad": layers.pad,
    "Identity": layers.leave, "Dropout": layers.leave,
    "Constant": integers.constant, "ConstantOfShape": integers.constant_of_shape, "Shape": integers.shape,
    "Range": integers.integer_range,
    "Add": _arithmetic("aten.add.Tensor", "add"), "Sub": _arithmetic("aten.sub.Tensor", "sub"),
    "Mul": _arithmetic("aten.mul.Tensor", "mul"), "Div": _arithmetic("aten.div.Tensor", "floordiv"),
    "Mod": _remainder, "Pow": _pow, "Min": _variadic("aten.minimum.default"), "Max": _variadic("aten.maximum.default"),
    "Sum": _variadic("aten.add.Tensor"),
    **{name: _simple(f"aten.{name.lower()}.default") for name in (
        "Sqrt", "Exp", "Log", "Neg", "Abs", "Reciprocal", "Floor", "Ceil", "Round", "Sign", "Sin", "Cos", "Atan", "IsNaN", "Relu", "Sigmoid",
        "Tanh", "Mish", "HardSwish", "Selu",
    )},
    "Erf": _erf_like, "Not": _simple("aten.logical_not.default"),
    "LeakyRelu": _activation("aten.leaky_relu.default", alpha=0.01), "Elu": _activation("aten.elu.default", alpha=1.0),
    "Celu": _activation("aten.celu.default", alpha=1.0), "Softplus": _simple("aten.softplus.default"),
    "Clip": _clip, "HardSigmoid": _hard_sigmoid, "Gelu": _gelu, "PRelu": _prelu, "Softsign": _softsign,
    "Softmax": _softmax("aten.softmax.int"), "LogSoftmax": _softmax("aten.log_softmax.int"),
    "ReduceMean": _reduce("aten.mean.dim"), "ReduceSum": _reduce("aten.sum.dim_IntList"),
    "ReduceMax": _reduce("aten.amax.default"), "ReduceMin": _reduce("aten.amin.default"), "ReduceL1": _norm(1), "ReduceL2": _norm(2),
    "ReduceSumSquare": _sum_of_squares, "ReduceLogSumExp": _reduce("aten.logsumexp.default"),
    "ArgMax": _arg_max, "CumSum": _cumulative_sum, "Swish": _swish,
    "Flatten": movement.flatten, "Reshape": movement.reshape, "Transpose": movement.transpose, "Squeeze": movement.squeeze, "Unsqueeze": movement.unsqueeze,
    "Concat": movement.concat, "Split": movement.split, "Slice": movement.slice, "Gather": movement.gather, "Cast": _cast, "Expand": movement.expand, "Tile": movement.tile,
    "Where": _where, "DepthToSpace": movement.depth_to_space, "SpaceToDepth": movement.space_to_depth,
    "GatherElements": movement.gather_elements, "ScatterND": folding.only_folded, "GatherND": folding.only_folded, "Trilu": movement.triangle, "Einsum": _einsum,
    "Equal": _equal, "Greater": _compare("aten.gt.Tensor"), "Less": _compare("aten.lt.Tensor"),
    "GreaterOrEqual": _compare("aten.ge.Tensor"), "LessOrEqual": _compare("aten.le.Tensor"),
    "And": _compare("aten.logical_and.default"), "Or": _compare("aten.logical_or.default"),
}  # fmt: skip
"""By the name of the operation."""
