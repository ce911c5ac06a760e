"""Folding of BatchNorm layers into the convolutions before them, for networks in evaluation mode.

A convolution with weight w and bias b, followed by a BatchNorm with running mean m, running variance v, scale g and shift s, is
the convolution with weight w g / sqrt(v + eps) and bias (b - m) g / sqrt(v + eps) + s.
"""

import copy
from collections import Counter
from contextlib import ExitStack
from typing import Any, cast

import torch
from torch import Tensor, nn

from worker.distillation.introspection.taps import undisturbed

RELATIVE_TOLERANCE = 1e-3
"""Largest difference between logits of the folded and the given network, relative to the size of the logits."""
PROBES = 8
"""Number of images on which the two are compared."""


def folded(network: nn.Module, example: Tensor) -> tuple[nn.Module, int]:
    """A copy of a frozen network with as many BatchNorm layers folded as possible, and their number.

    A pair is found by running the network on `example` (B, C, H, W): a BatchNorm2d that reads the very tensor that a convolution
    returns, both called once. Whether anything else reads that tensor is found by comparing the logits on random images; if they
    differ, nothing is folded. The network and torch's generators are not changed.
    """
    copied = copy.deepcopy(network)
    with undisturbed(copied, example.device):
        pairs = _pairs(copied, example)
        probe = _probe(example)
        expected = copied(probe)
        for convolution, norm in pairs:
            _fold(cast(nn.Conv2d, copied.get_submodule(convolution)), cast(nn.BatchNorm2d, copied.get_submodule(norm)))
            parent, _, name = norm.rpartition(".")
            setattr(copied.get_submodule(parent), name, nn.Identity())
        if not pairs or not _alike(copied, probe, expected):
            return network, 0
    return copied, len(pairs)


def _pairs(network: nn.Module, example: Tensor) -> list[tuple[str, str]]:
    """Paths of convolutions and of the BatchNorm layers that read their outputs."""
    made: dict[int, tuple[str, Tensor]] = {}  # holds the tensors, so that no other gets the same id
    calls: Counter[str] = Counter()
    readers: dict[str, list[str]] = {}

    def returned(path: str) -> Any:
        def hook(_module: nn.Module, _args: Any, output: Tensor) -> None:
            calls[path] += 1
            made[id(output)] = (path, output)

        return hook

    def read(path: str) -> Any:
        def hook(_module: nn.Module, args: tuple[Tensor, ...]) -> None:
            calls[path] += 1
            if id(args[0]) in made:
                readers.setdefault(made[id(args[0])][0], []).append(path)

        return hook

    with ExitStack() as hooks:
        for path, module in network.named_modules(remove_duplicate=False):
            if _is_foldable(module):
                hooks.callback(module.register_forward_hook(returned(path)).remove)
            elif type(module) is nn.BatchNorm2d and module.running_mean is not None:
                hooks.callback(module.register_forward_pre_hook(read(path)).remove)
        network(example)
    return [
        (path, norms[0])
        for path, norms in readers.items()
        if len(norms) == 1 and calls[path] == 1 and calls[norms[0]] == 1
    ]


def _is_foldable(module: nn.Module) -> bool:
    """Whether a module is a convolution with a plain weight."""
    return isinstance(module, nn.Conv2d) and isinstance(module._parameters.get("weight"), nn.Parameter)


@torch.no_grad()
def _fold(convolution: nn.Conv2d, norm: nn.BatchNorm2d) -> None:
    assert norm.running_mean is not None and norm.running_var is not None
    scale = (norm.running_var.double() + norm.eps).rsqrt()
    shift = -norm.running_mean.double()
    if convolution.bias is not None:
        shift = shift + convolution.bias.double()
    if norm.affine:
        scale = scale * norm.weight.double()
    shift = shift * scale
    if norm.affine:
        shift = shift + norm.bias.double()
    weight = convolution.weight
    convolution.weight = nn.Parameter((weight.double() * scale.view(-1, 1, 1, 1)).to(weight.dtype), requires_grad=False)
    convolution.bias = nn.Parameter(shift.to(weight.dtype), requires_grad=False)


def _probe(example: Tensor) -> Tensor:
    """Random images like the example (`PROBES`, C, H, W)."""
    draw = torch.Generator().manual_seed(0)
    return torch.randn((PROBES, *example.shape[1:]), generator=draw).to(example)


def _alike(network: nn.Module, probe: Tensor, expected: Tensor) -> bool:
    """Whether the network still gives the expected logits, up to rounding."""
    try:
        logits = network(probe)
    except AttributeError:  # it reads the values of a BatchNorm layer that is gone
        return False
    largest = expected.abs().amax().clamp_min(torch.finfo(expected.dtype).tiny)
    return bool((logits - expected).abs().amax() <= RELATIVE_TOLERANCE * largest)
