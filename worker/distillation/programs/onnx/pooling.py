"""Rules for pooling, and the padding that convolutions have too."""

import math
from typing import Any

from worker.distillation.programs.format import Special
from worker.distillation.programs.onnx.building import NoTranslation
from worker.distillation.programs.onnx.node import Context, Operand


def padded(context: Context, x: Any, kernel: list[int], value: Any = 0.0) -> tuple[Any, list[int]]:
    """The input, padded with `value` where its sides differ, and the padding that is left to the layer."""
    count = len(kernel)
    pads, auto = list(context.get("pads", [0] * 2 * count)), context.get("auto_pad", "NOTSET")
    strides, dilations = context.get("strides", [1] * count), context.get("dilations", [1] * count)
    if auto in ("SAME_UPPER", "SAME_LOWER"):
        sizes = context.shape(x)[-count:]
        if any(size is None for size in sizes):
            raise NoTranslation("pads by a size that depends on the batch")
        pads = _same(auto, [int(size or 0) for size in sizes], kernel, strides, dilations)
    elif auto == "VALID":
        pads = [0] * 2 * count
    before, after = pads[:count], pads[count:]
    if before == after:
        return x, before
    flat = [each for pair in zip(reversed(before), reversed(after), strict=True) for each in pair]
    return context.add("aten.constant_pad_nd.default", x, flat, value), [0] * count


def _same(auto: str, sizes: list[int], kernel: list[int], strides: list[int], dilations: list[int]) -> list[int]:
    before, after = [], []
    for size, width, stride, dilation in zip(sizes, kernel, strides, dilations, strict=True):
        total = max((math.ceil(size / stride) - 1) * stride + dilation * (width - 1) + 1 - size, 0)
        less, more = total // 2, total - total // 2
        before.append(less if auto == "SAME_UPPER" else more)
        after.append(more if auto == "SAME_UPPER" else less)
    return before + after


def max_pool(context: Context) -> Operand:
    """MaxPool of maps, without indices."""
    if len(context.node.output) > 1:
        raise NoTranslation("gives indices")
    kernel = list(context.get("kernel_shape"))
    _check(context, kernel)
    x, padding = padded(context, context.tensor(0), kernel, Special("float", "-inf"))
    ones = [1] * len(kernel)
    rest = (padding, context.get("dilations", ones), bool(context.get("ceil_mode", 0)))
    return context.add(f"aten.max_pool{len(kernel)}d.default", x, kernel, context.get("strides", ones), *rest)


def average_pool(context: Context) -> Operand:
    """AveragePool of maps. If the sides are padded differently, sums and counts are pooled, so that padding does not count."""
    kernel = list(context.get("kernel_shape"))
    _check(context, kernel)
    ones = [1] * len(kernel)
    if set(context.get("dilations", ones)) != {1}:
        raise NoTranslation("has dilations")
    given = context.tensor(0)
    x, padding = padded(context, given, kernel)
    counts = bool(context.get("count_include_pad", 0))
    rest = (kernel, context.get("strides", ones), padding, bool(context.get("ceil_mode", 0)), counts)
    name = f"aten.avg_pool{len(kernel)}d.default"
    result = context.add(name, x, *rest)
    if x == given or counts:
        return result
    inside, _ = padded(context, context.add("aten.ones_like.default", given), kernel)
    return context.add("aten.div.Tensor", result, context.add(name, inside, *rest))


def _check(context: Context, kernel: list[int]) -> None:
    if len(kernel) not in (1, 2, 3):
        raise NoTranslation(f"has {len(kernel)} dimensions")
    pads = list(context.get("pads", []))
    uneven = pads[: len(kernel)] != pads[len(kernel) :] or context.get("auto_pad", "NOTSET").startswith("SAME")
    if uneven and context.get("ceil_mode", 0):
        raise NoTranslation("pads its sides differently and rounds up")


def global_average_pool(context: Context) -> Operand:
    """GlobalAveragePool."""
    x = context.tensor(0)
    rank = len(context.shape(x))
    if rank == 4:
        return context.add("aten.adaptive_avg_pool2d.default", x, [1, 1])
    return context.add("aten.mean.dim", x, list(range(2, rank)), True)


def global_max_pool(context: Context) -> Operand:
    """GlobalMaxPool."""
    x = context.tensor(0)
    return context.add("aten.amax.default", x, list(range(2, len(context.shape(x)))), True)
