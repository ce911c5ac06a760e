"""The network of a finished student as an ONNX file holds it: int8 weights, with QuantizeLinear and DequantizeLinear around layers."""

import copy
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from worker.distillation.compression.activations import INPUT, OUTPUT, Rounding, roundings
from worker.distillation.compression.folded import Integers, folded
from worker.distillation.compression.learned_rounding import learned_roundings
from worker.distillation.compression.storage import stored_of, table_of, uniform_codes

FOLDED = "folded_into"
"""Attribute of a BatchNorm: its own path, and that of the layer that it is folded into, in the network as it was trained."""
INTEGER = "in_integers"
"""Attribute of a layer whose weights have 8 bits in the file."""


def in_integers(network: nn.Module) -> bool:
    """Whether a network rounds activations to 8 bits, so that its ONNX file computes in integers."""
    return next(roundings(network), None) is not None


def rounds_activations(network: nn.Module) -> bool:
    """Whether a network rounds activations, so that its outputs are compared with those of its ONNX file by their agreement."""
    return in_integers(network) or next(learned_roundings(network), None) is not None


def integer_form(network: nn.Module) -> nn.Module:
    """A copy of a finished network (on the CPU, in eval mode) that the exporter turns into an ONNX graph in integers.

    It can be exported, not run: torch does not compute ONNX's operators.
    """
    copied = copy.deepcopy(network)
    norms = {}
    for path, module in copied.named_modules():
        if hasattr(module, FOLDED):
            own, layer = getattr(module, FOLDED)
            norms[path.removesuffix(own) + layer] = path
    for path, module in list(copied.named_modules()):
        if hasattr(module, INTEGER):
            norm = copied.get_submodule(norms[path]) if path in norms else None
            copied.set_submodule(path, IntegerLayer(module, norm))
    for path, module in list(copied.named_modules()):
        folded_away = path in norms.values()
        if folded_away or OUTPUT in module._modules:
            copied.set_submodule(path, RoundedOutput(module, nn.Identity() if folded_away else nn.ReLU()))
    return copied


def symbolic(name: str, inputs: tuple[Tensor, ...], like: Tensor, dtype: torch.dtype, **attributes: int) -> Tensor:
    """One ONNX operator, whose output has the shape of `like`."""
    result: Tensor = torch.onnx.ops.symbolic(name, inputs, {**attributes}, dtype=dtype, shape=like.shape, version=None)
    return result


class Rounded(nn.Module):
    """The two operators that round an activation."""

    scale: Tensor
    zero: Tensor

    def __init__(self, rounding: nn.Module):
        super().__init__()
        assert isinstance(rounding, Rounding)
        self.register_buffer("scale", rounding.scale.reshape(()).clone())
        self.register_buffer("zero", rounding.zero.reshape(()).to(torch.uint8))

    def forward(self, x: Tensor) -> Tensor:
        codes = symbolic("QuantizeLinear", (x, self.scale, self.zero), x, torch.uint8)
        return symbolic("DequantizeLinear", (codes, self.scale, self.zero), x, torch.float32)


class RoundedOutput(nn.Module):
    """In place of a BatchNorm that is folded into the layer before it, or of a ReLU whose output is rounded."""

    def __init__(self, module: nn.Module, function: nn.Module):
        super().__init__()
        self.function = function
        self.rounded = Rounded(module.get_submodule(OUTPUT)) if OUTPUT in module._modules else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        return self.rounded(self.function(x))


class IntegerLayer(nn.Module):
    """A convolution or linear layer with int8 weights and int32 biases, which runtimes compute in integers; if its input is not rounded,
    the bias is float32, and runtimes compute in float32."""

    codes: Tensor
    scale: Tensor
    zeros: Tensor
    bias: Tensor
    bias_scale: Tensor
    bias_zeros: Tensor

    def __init__(self, layer: nn.Module, norm: nn.Module | None):
        super().__init__()
        own = integers_of(layer, norm)
        self.rounded = Rounded(layer.get_submodule(INPUT)) if INPUT in layer._modules else None
        self.register_buffer("codes", own.codes)
        self.register_buffer("scale", own.scale)
        self.register_buffer("zeros", torch.zeros(len(own.scale), dtype=torch.int8))
        if self.rounded is None:
            self.register_buffer("bias", own.bias)
        else:
            self._round_bias(own, own.scale * self.rounded.scale)
        given: Any = layer
        self.linear = isinstance(layer, nn.Linear)
        self.call: dict[str, Any] = (
            {} if self.linear else {name: getattr(given, name) for name in ("stride", "padding", "dilation", "groups")}
        )
        self.convolution = {3: F.conv1d, 4: F.conv2d, 5: F.conv3d}.get(own.codes.ndim)

    def _round_bias(self, own: Integers, steps: Tensor) -> None:
        limits = torch.iinfo(torch.int32)
        rounded = (own.bias.double() / steps.double()).round().clamp(limits.min, limits.max)
        self.register_buffer("bias", rounded.to(torch.int32))
        self.register_buffer("bias_scale", steps)
        self.register_buffer("bias_zeros", torch.zeros(len(own.scale), dtype=torch.int32))

    def forward(self, x: Tensor) -> Tensor:
        weight = symbolic("DequantizeLinear", (self.codes, self.scale, self.zeros), self.codes, torch.float32, axis=0)
        bias = self.bias
        if self.rounded is not None:
            x = self.rounded(x)
            given = (self.bias, self.bias_scale, self.bias_zeros)
            bias = symbolic("DequantizeLinear", given, self.bias, torch.float32, axis=0)
        if self.linear:
            return F.linear(x, weight, bias)
        assert self.convolution is not None
        return self.convolution(x, weight, bias, **self.call)


def integers_of(layer: nn.Module, norm: nn.Module | None) -> Integers:
    """A finished layer's codes (int8), scales and biases, with the BatchNorm after it folded in."""
    stored, scale = stored_of(layer), table_of(layer, "scale")
    assert stored is not None and scale is not None
    weight: Tensor = layer.weight.detach()  # type: ignore[operator]
    codes = (uniform_codes(weight, stored, scale) + stored.least).reshape(weight.shape).to(torch.int8)
    bias: Any = layer.bias
    return folded(codes, scale, bias, norm)
