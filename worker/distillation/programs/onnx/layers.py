"""Rules for layers: convolutions, products, normalisations, pooling, resizing."""

import math
from typing import Any

import numpy as np

from worker.distillation.programs.format import TensorName
from worker.distillation.programs.onnx.building import NoTranslation
from worker.distillation.programs.onnx.node import Constant, Context, Integers, Operand
from worker.distillation.programs.onnx.pooling import padded


def _weights(context: Context) -> tuple[Any, Any]:
    """The weight and the bias, which becomes None where there is none."""
    weight = context.tensor(1, "weight", "param")
    return weight, context.tensor(2, "bias", "param") if context.has(2) else None


def convolution(context: Context) -> Operand:
    """Conv."""
    x = context.tensor(0)
    weight, bias = _weights(context)
    kernel = [int(each or 0) for each in context.shape(weight)[2:]]
    if len(kernel) not in (1, 2, 3):
        raise NoTranslation(f"has {len(kernel)} dimensions")
    x, padding = padded(context, x, kernel)
    rest = (context.get("strides", [1] * len(kernel)), padding, context.get("dilations", [1] * len(kernel)))
    return context.add(f"aten.conv{len(kernel)}d.default", x, weight, bias, *rest, context.get("group", 1))


def transposed_convolution(context: Context) -> Operand:
    """ConvTranspose with equal padding on both sides."""
    x = context.tensor(0)
    weight, bias = _weights(context)
    count = len(context.shape(weight)) - 2
    pads = list(context.get("pads", [0] * 2 * count))
    if count not in (1, 2, 3) or context.get("output_shape") or context.get("auto_pad", "NOTSET") != "NOTSET":
        raise NoTranslation("says its output shape or pads by itself")
    if pads[:count] != pads[count:]:
        raise NoTranslation("pads its sides differently")
    name = {1: "conv_transpose1d.default", 2: "conv_transpose2d.input", 3: "conv_transpose3d.input"}[count]
    ones, zeros = [1] * count, [0] * count
    rest = (context.get("output_padding", zeros), context.get("group", 1), context.get("dilations", ones))
    return context.add(f"aten.{name}", x, weight, bias, context.get("strides", ones), pads[:count], *rest)


def gemm(context: Context) -> Operand:
    """Gemm: a linear layer where the second factor is stored, else a product."""
    alpha, beta = context.get("alpha", 1.0), context.get("beta", 1.0)
    x = context.tensor(0)
    if context.get("transA", 0):
        x = context.add("aten.transpose.int", x, 0, 1)
    plain = alpha == 1.0 and (beta == 1.0 or not context.has(2))
    if plain and isinstance(context.operand(1), Constant) and _is_vector(context, 2):
        bias = context.tensor(2, "bias", "param") if context.has(2) else None
        return context.add("aten.linear.default", x, _linear_weight(context, not context.get("transB", 0)), bias)
    y = context.tensor(1)
    if context.get("transB", 0):
        y = context.add("aten.transpose.int", y, 0, 1)
    result = context.add("aten.mul.Scalar", context.add("aten.mm.default", x, y), alpha)
    if not context.has(2):
        return result
    return context.add("aten.add.Tensor", result, context.add("aten.mul.Scalar", context.tensor(2), beta))


def _is_vector(context: Context, number: int) -> bool:
    operand = context.operand(number)
    return operand is None or (isinstance(operand, Constant) and np.ndim(operand.array) == 1)


def _linear_weight(context: Context, transpose: bool) -> TensorName:
    """A stored matrix as torch's linear layers have it, (outputs, inputs)."""
    array = context.array(1)
    if array.ndim != 2:
        raise NoTranslation("has a weight that is not a matrix")
    if not transpose:
        return context.store(array, "weight", "param")
    turned = context.program.turned.setdefault(id(array), np.ascontiguousarray(array.T))
    return context.store(turned, "weight", "param")


def matmul(context: Context) -> Operand:
    """MatMul: a linear layer without bias where the second factor is a stored matrix."""
    operand = context.operand(1)
    if isinstance(operand, Constant) and np.ndim(operand.array) == 2 and np.asarray(operand.array).dtype.kind == "f":
        return context.add("aten.linear.default", context.tensor(0), _linear_weight(context, transpose=True))
    return context.add("aten.matmul.default", context.tensor(0), context.tensor(1))


def batch_normalization(context: Context) -> Operand:
    """BatchNormalization by stored statistics, or by those of its input, as weights are standardised."""
    weight, bias = (context.tensor(at, name, "param") for at, name in ((1, "weight"), (2, "bias")))
    if context.get("training_mode", 0):
        own = (None, None, True, 0.0, context.get("epsilon", 1e-5), True)
        return context.add("aten.batch_norm.default", context.tensor(0), weight, bias, *own)
    mean, variance = (context.tensor(at, name, "buffer") for at, name in ((3, "running_mean"), (4, "running_var")))
    rest = (False, 1 - context.get("momentum", 0.9), context.get("epsilon", 1e-5), True)
    return context.add("aten.batch_norm.default", context.tensor(0), weight, bias, mean, variance, *rest)


def instance_normalization(context: Context) -> Operand:
    """InstanceNormalization."""
    weight, bias = (context.tensor(at, name, "param") for at, name in ((1, "weight"), (2, "bias")))
    rest = (None, None, True, 0.1, context.get("epsilon", 1e-5), True)
    return context.add("aten.instance_norm.default", context.tensor(0), weight, bias, *rest)


def layer_normalization(context: Context) -> Operand:
    """LayerNormalization over the last dimensions."""
    x = context.tensor(0)
    shape = context.shape(x)
    normalized = shape[context.get("axis", -1) % len(shape) :]
    if None in normalized:
        raise NoTranslation("normalises over the batch")
    bias = context.tensor(2, "bias", "param") if context.has(2) else None
    weight = context.tensor(1, "weight", "param")
    return context.add("aten.layer_norm.default", x, normalized, weight, bias, context.get("epsilon", 1e-5))


def rms_normalization(context: Context) -> Operand:
    """RMSNormalization over the last dimensions."""
    x = context.tensor(0)
    shape = context.shape(x)
    normalized = shape[context.get("axis", -1) % len(shape) :]
    if None in normalized:
        raise NoTranslation("normalises over the batch")
    return context.add(
        "aten.rms_norm.default", x, normalized, context.tensor(1, "weight", "param"), context.get("epsilon", 1e-5)
    )


def lp_normalization(context: Context) -> Operand:
    """LpNormalization: a vector divided by its length."""
    x = context.tensor(0)
    length = context.add("aten.linalg_vector_norm.default", x, context.get("p", 2), [context.get("axis", -1)], True)
    return context.add("aten.div.Tensor", x, length)


def local_response_normalization(context: Context) -> Operand:
    """LRN: division by a sum of squares over neighbouring channels."""
    x, size = context.tensor(0), context.get("size")
    squares = context.add("aten.unsqueeze.default", context.add("aten.mul.Tensor", x, x), 1)
    sides = [0, 0, 0, 0, (size - 1) // 2, size // 2]
    around = context.add("aten.constant_pad_nd.default", squares, sides, 0.0)
    mean = context.add(
        "aten.squeeze.dims", context.add("aten.avg_pool3d.default", around, [size, 1, 1], [1, 1, 1]), [1]
    )
    scaled = context.add("aten.mul.Scalar", mean, context.get("alpha", 1e-4))
    base = context.add("aten.add.Scalar", scaled, context.get("bias", 1.0))
    return context.add("aten.div.Tensor", x, context.add("aten.pow.Tensor_Scalar", base, context.get("beta", 0.75)))


def group_normalization(context: Context) -> Operand:
    """GroupNormalization with a scale for each channel."""
    weight, bias = (context.tensor(at, name, "param") for at, name in ((1, "weight"), (2, "bias")))
    x = context.tensor(0)
    if context.shape(weight) != [context.shape(x)[1]]:
        raise NoTranslation("has a scale for each group")
    return context.add(
        "aten.group_norm.default", x, context.get("num_groups"), weight, bias, context.get("epsilon", 1e-5)
    )


def resize(context: Context) -> Operand:
    """Resize and Upsample of maps (B, C, H, W) as torch's interpolation does it."""
    x, mode = context.tensor(0), context.get("mode", "nearest")
    shape = context.shape(x)
    if len(shape) != 4 or context.get("axes"):
        raise NoTranslation("resizes something else than maps")
    upsample = context.node.op_type == "Upsample"
    scales = context.get("scales") or _optional(context, 1 if upsample or context.opset < 11 else 2)
    sizes = None if upsample else _optional(context, 3)
    if sizes is None and scales is None:
        raise NoTranslation("computes its size")
    if sizes is None:
        sizes = [
            0,
            0,
            *(math.floor((each or 0) * scale) for each, scale in zip(shape[2:], list(scales)[2:], strict=True)),
        ]
    size = [int(each) for each in sizes[2:]]
    transformation = context.get("coordinate_transformation_mode", "asymmetric" if context.opset < 11 else "half_pixel")
    if mode == "nearest" and transformation == "asymmetric" and context.get("nearest_mode", "floor") == "floor":
        return context.add("aten.upsample_nearest2d.vec", x, size, None)
    corners = transformation == "align_corners"
    if mode in ("linear", "cubic") and (corners or transformation in ("half_pixel", "pytorch_half_pixel")):
        name = {"linear": "bilinear", "cubic": "bicubic"}[mode]
        return context.add(f"aten.upsample_{name}2d.vec", x, size, corners, None)
    raise NoTranslation(f"resizes by {mode} and {transformation}")


def _optional(context: Context, number: int) -> Any:
    """A list, None where it is absent or empty; lengths among it may depend on the batch."""
    if not context.has(number):
        return None
    if isinstance(context.operand(number), Integers):
        return context.integers(number) or None
    array = np.asarray(context.array(number)).reshape(-1)
    return array.tolist() or None


def pad(context: Context) -> Operand:
    """Pad of the last dimensions."""
    x, mode = context.tensor(0), context.get("mode", "constant")
    pads = list(context.get("pads")) if context.opset < 11 else context.static(1)
    value = context.get("value", 0.0) if context.opset < 11 else context.number(2, 0.0)
    if context.has(3):
        raise NoTranslation("names the dimensions that it pads")
    half = len(pads) // 2
    flat = [each for pair in zip(reversed(pads[:half]), reversed(pads[half:]), strict=True) for each in pair]
    while len(flat) > 2 and flat[-2:] == [0, 0]:
        flat = flat[:-2]
    if mode == "constant":
        return context.add("aten.constant_pad_nd.default", x, flat, value)
    if mode in ("reflect", "edge") and len(flat) == 4:
        name = {"reflect": "reflection", "edge": "replication"}[mode]
        return context.add(f"aten.{name}_pad2d.default", x, flat)
    raise NoTranslation(f"pads by {mode}")


def leave(context: Context) -> Operand:
    """Identity and Dropout: what goes in comes out."""
    return context.operand(0)
