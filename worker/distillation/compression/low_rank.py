"""Layers of low rank: a linear layer as two, a convolution as two (by SVD) or three (Tucker-2).

Denton et al., "Exploiting linear structure within convolutional networks", arXiv:1404.0736; Kim et al., "Compression of deep
convolutional neural networks", arXiv:1511.06530 (Tucker-2). Shapes: O and I output and input channels, K kernel size.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

CONVOLUTIONS: Mapping[type, type] = {nn.Conv1d: nn.Conv1d, nn.Conv2d: nn.Conv2d, nn.Conv3d: nn.Conv3d}


def shape_of(module: nn.Module) -> tuple[int, int, int]:
    """Output channels, input channels, and the number of values of the kernel (1 for a linear layer)."""
    weight: Tensor = module.weight  # type: ignore[assignment]
    return weight.shape[0], weight.shape[1], int(weight[0, 0].numel()) if weight.ndim > 2 else 1


def can_be_factorised(module: nn.Module) -> bool:
    """Whether a module is a linear layer or a convolution without groups."""
    if isinstance(module, nn.Linear):
        return True
    conv: Any = module
    return bool(type(module) in CONVOLUTIONS and conv.groups == 1 and conv.padding_mode == "zeros")


def svd_parameters(module: nn.Module, rank: int) -> int:
    """Weights of a layer that is written as two of this rank."""
    out, into, kernel = shape_of(module)
    return rank * (into * kernel + out)


def tucker_parameters(module: nn.Module, ranks: Sequence[int]) -> int:
    """Weights of a convolution that is written as three, of input rank and output rank."""
    out, into, kernel = shape_of(module)
    return into * ranks[0] + ranks[0] * ranks[1] * kernel + ranks[1] * out


def in_parts(module: nn.Module, ranks: Sequence[int]) -> nn.Sequential:
    """The layers that replace one: two for one rank, three for two ranks; their weights are not set."""
    weight: Tensor = module.weight  # type: ignore[assignment]
    bias, place = module.bias is not None, {"device": weight.device, "dtype": weight.dtype}
    if isinstance(module, nn.Linear):
        first = nn.Linear(module.in_features, ranks[0], bias=False, **place)
        return nn.Sequential(first, nn.Linear(ranks[0], module.out_features, bias=bias, **place))
    conv: Any = module
    made: Any = CONVOLUTIONS[type(module)]
    spatial = {
        "kernel_size": conv.kernel_size, "stride": conv.stride, "padding": conv.padding, "dilation": conv.dilation,
    }  # fmt: skip
    if len(ranks) == 1:
        return nn.Sequential(
            made(conv.in_channels, ranks[0], bias=False, **spatial, **place),
            made(ranks[0], conv.out_channels, 1, bias=bias, **place),
        )
    return nn.Sequential(
        made(conv.in_channels, ranks[0], 1, bias=False, **place),
        made(ranks[0], ranks[1], bias=False, **spatial, **place),
        made(ranks[1], conv.out_channels, 1, bias=bias, **place),
    )


@torch.no_grad()
def set_factors(parts: nn.Sequential, module: nn.Module) -> None:
    """Set the weights of a module's parts to its nearest factors, and the last bias to its bias."""
    weight: Tensor = module.weight.detach().float()  # type: ignore[operator]
    factors = (
        svd_factors(weight, _rank(parts[0])) if len(parts) == 2 else tucker_factors(weight, *map(_rank, parts[:2]))
    )
    for part, factor in zip(parts, factors, strict=True):
        own: Any = part
        own.weight.copy_(factor.reshape(own.weight.shape))
    if module.bias is not None:
        last: Any = parts[-1]
        last.bias.copy_(module.bias)


def svd_factors(weight: Tensor, rank: int) -> tuple[Tensor, Tensor]:
    """`(sqrt(S) V^T, U sqrt(S))` (R, I*K) and (O, R) of the best approximation of rank R of a weight (O, I, ...).

    By Eckart and Young its squared error is the sum of the squared singular values that are left out.
    """
    left, values, right = torch.linalg.svd(weight.flatten(1), full_matrices=False)
    root = values[:rank].sqrt()
    return root[:, None] * right[:rank], left[:, :rank] * root


def tucker_factors(weight: Tensor, inner: int, outer: int) -> tuple[Tensor, Tensor, Tensor]:
    """`(R1, I)`, `(R2, R1, ...)` and `(O, R2)`: bases of the input and the output channels, by the singular vectors of both
    unfoldings, and the core between them."""
    out_basis = torch.linalg.svd(weight.flatten(1), full_matrices=False)[0][:, :outer]
    in_basis = torch.linalg.svd(weight.transpose(0, 1).flatten(1), full_matrices=False)[0][:, :inner]
    core = torch.einsum("oi...,or,is->rs...", weight, out_basis, in_basis)
    return in_basis.T, core, out_basis


def _rank(part: nn.Module) -> int:
    return len(part.weight)  # type: ignore[arg-type]
