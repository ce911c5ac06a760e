"""Which BatchNorm follows which layer, and the layer's scales with the BatchNorm in them."""

from collections import Counter
from collections.abc import Iterable
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from worker.distillation.compression.layers import WEIGHTED
from worker.distillation.introspection.taps import undisturbed
from worker.distillation.introspection.tracing import any_output, trace

NORMS = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d)


def norms_after(network: nn.Module, example: Tensor) -> dict[str, str]:
    """The path of each BatchNorm with running statistics that reads the very output of a layer, and that layer's path."""
    with undisturbed(network, example.device):
        found = trace(network, example, check_output=any_output)
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


def rounded_outputs(network: nn.Module, norms: Iterable[str], example: Tensor) -> list[str]:
    """Where to round what comes out of each of these BatchNorms: after the ReLU that reads it, if that is a module of its own, so that no
    code is spent on negative values; else at the BatchNorm. A runtime computes layer, BatchNorm and ReLU in one step in integers."""
    made: list[tuple[str, Tensor]] = []
    read: list[tuple[str, Tensor]] = []
    with undisturbed(network, example.device), ExitStack() as hooks:
        for path, module in network.named_modules():
            if path in norms:
                hooks.callback(module.register_forward_hook(partial(_note_output, made, path)).remove)
            elif isinstance(module, nn.ReLU):
                hooks.callback(module.register_forward_pre_hook(partial(_note_input, read, path)).remove)
        network(example)
    calls = Counter(path for path, _ in read)
    by_input = {id(tensor): path for path, tensor in read if calls[path] == 1}
    return [by_input.get(id(tensor), path) for path, tensor in made]


def _note_output(noted: list[tuple[str, Tensor]], path: str, _module: nn.Module, _args: Any, output: Tensor) -> None:
    noted.append((path, output))


def _note_input(noted: list[tuple[str, Tensor]], path: str, _module: nn.Module, args: Any) -> None:
    noted.append((path, args[0]))


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
