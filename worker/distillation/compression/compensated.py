"""Weights rounded one column after the other, where each error is made up for by the columns that follow (GPTQ).

Frantar et al., "GPTQ: accurate post-training quantization for generative pre-trained transformers", arXiv:2210.17323. For each output
channel it lowers `|(w - w') X|^2` over the inputs X of the layer on calibration images, which rounding to the nearest does not. Shapes: O
output channels, K = input channels a group times kernel values, G groups.
"""

from collections.abc import Iterable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from worker.distillation.introspection.taps import undisturbed

MOST_COLUMNS = 2304
"""Layers with more inputs of a channel are rounded to the nearest: the inverse would take too long."""
ROWS = 16_384
"""Most inputs of a layer that are looked at, at even distances."""
IMAGES = 128
DAMPING = 0.01
"""Part of the mean diagonal that is added to the covariance, as in the paper."""


def second_moments(network: nn.Module, layers: Iterable[str], images: Tensor) -> dict[str, Tensor]:
    """`X X^T` (G, K, K) of the inputs of the two-dimensional convolutions and linear layers at these paths, in float64, on at most 128 of the
    images (N, C, H, W); layers that are too large, or are not called, are missing."""
    found: dict[str, Tensor] = {}
    hooks = []
    images = images[:IMAGES]
    for path in layers:
        module = network.get_submodule(path)
        if columns_of(module) is not None:
            hooks.append(module.register_forward_hook(_adds_to(found, path, ROWS // len(images) + 1)))
    try:
        with undisturbed(network, images.device):
            for part in images.split(32):
                network(part)
    finally:
        for hook in hooks:
            hook.remove()
    return found


def _adds_to(found: dict[str, Tensor], path: str, rows_of_image: int) -> Any:
    def hook(module: nn.Module, args: tuple[Tensor, ...], _output: Tensor) -> None:
        x = _columns(module, args[0].detach(), rows_of_image)
        moments = (x.transpose(1, 2) @ x).double()
        found[path] = found[path] + moments if path in found else moments

    return hook


def columns_of(module: nn.Module) -> int | None:
    """K of a layer; None if it is none that can be rounded so."""
    if not isinstance(module, nn.Linear | nn.Conv2d) or (
        isinstance(module, nn.Conv2d) and module.padding_mode != "zeros"
    ):
        return None
    count = int(module.weight[0].numel())
    return count if count <= MOST_COLUMNS else None


def _columns(module: nn.Module, x: Tensor, rows_of_image: int) -> Tensor:
    """Some inputs (G, N, K) of a layer."""
    if isinstance(module, nn.Linear):
        return x.reshape(1, -1, x.shape[-1])
    conv: nn.Conv2d = module  # type: ignore[assignment]
    x = F.pad(x, conv._reversed_padding_repeated_twice)
    unfolded = F.unfold(x, conv.kernel_size, conv.dilation, 0, conv.stride)
    every = max(1, unfolded.shape[2] // rows_of_image)
    unfolded = unfolded[:, :, ::every]
    grouped = unfolded.reshape(len(x), conv.groups, -1, unfolded.shape[2])
    return grouped.permute(1, 0, 3, 2).reshape(conv.groups, -1, grouped.shape[2])


@torch.no_grad()
def compensated(weight: Tensor, scale: Tensor, largest: int, moments: Tensor) -> Tensor:
    """A weight (O, ...) rounded to multiples of one scale (O,) a channel, up to `largest` of them, with moments (G, K, K)."""
    flat = weight.detach().double().flatten(1)
    groups = flat.reshape(len(moments), -1, flat.shape[1])
    scales = scale.double().reshape(len(moments), -1)
    codes = [_codes(*each, largest) for each in zip(groups, scales, moments, strict=True)]
    rounded = torch.cat(codes).to(scale.dtype) * scale[:, None]
    return rounded.reshape(weight.shape)


def _codes(weight: Tensor, scale: Tensor, moments: Tensor, largest: int) -> Tensor:
    """The codes (O, K) of the channels of a group."""
    damping = DAMPING * moments.diagonal().mean().clamp(min=1e-12)
    whole = moments + damping * torch.eye(len(moments), dtype=moments.dtype, device=moments.device)
    upper = torch.linalg.cholesky(torch.cholesky_inverse(torch.linalg.cholesky(whole)), upper=True)
    left, codes = weight.clone(), torch.zeros_like(weight)
    for column in range(weight.shape[1]):
        codes[:, column] = (left[:, column] / scale).round().clamp(-largest, largest)
        error = (left[:, column] - codes[:, column] * scale) / upper[column, column]
        left[:, column:] -= error[:, None] * upper[column, column:]
    return codes
