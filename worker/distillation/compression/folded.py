"""Which BatchNorm follows which layer, and the layer's scales with the BatchNorm in them."""

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from worker.distillation.compression.layers import WEIGHTED
from worker.distillation.introspection.taps import undisturbed
from worker.distillation.introspection.tracing import trace

NORMS = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d)


def norms_after(network: nn.Module, example: Tensor) -> dict[str, str]:
    """The path of each BatchNorm with running statistics that reads the very output of a layer, and that layer's path."""
    with undisturbed(network, example.device):
        found = trace(network, example)
    made = {
        found.tensors[path]: path
        for path in found.started
        if path in found.tensors and isinstance(network.get_submodule(path), WEIGHTED)
    }
    pairs = {}
    for path in dict.fromkeys(found.started):
        module = network.get_submodule(path)
        layer = made.get(found.tensors.get(f"{path}:in", -1))
        if isinstance(module, NORMS) and module.track_running_stats and layer is not None:
            pairs[path] = layer
    return pairs


@dataclass(frozen=True)
class Integers:
    """A layer in integers: codes (O, ...) int8, one scale and one bias for each of the O channels."""

    codes: Tensor
    scale: Tensor
    bias: Tensor


@torch.no_grad()
def folded(codes: Tensor, scale: Tensor, bias: Tensor | None, norm: nn.Module | None) -> Integers:
    """A layer with the BatchNorm after it folded into scale and bias; where its factor is negative, the codes change their sign."""
    bias = torch.zeros_like(scale) if bias is None else bias.detach()
    if norm is None:
        return Integers(codes, scale, bias)
    own: Any = norm
    factor = (own.running_var + own.eps).rsqrt()
    factor = factor if own.weight is None else factor * own.weight.detach()
    sign = torch.where(factor < 0, -1, 1).to(codes.dtype)
    shift = torch.zeros_like(scale) if own.bias is None else own.bias.detach()
    return Integers(
        codes * sign.reshape(-1, *[1] * (codes.ndim - 1)),
        (scale * factor.abs()).clamp(min=torch.finfo(torch.float32).tiny),
        shift + (bias - own.running_mean) * factor,
    )
