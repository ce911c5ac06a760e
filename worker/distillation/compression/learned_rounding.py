"""Activations of few bits: rounding at the inputs of layers, with scales that are trained (LSQ).

Esser et al., "Learned step size quantization", arXiv:1902.08153. An activation x is `s round(clip(x / s, Q_N, Q_P))`, with Q_N = 0 and
Q_P = 2^b - 1, or, if it has negative values, Q_N = -2^(b-1) and Q_P = 2^(b-1) - 1.
"""

import copy
from collections.abc import Iterator, Mapping

import torch
from torch import Tensor, nn

from worker.distillation.compression.activations import INPUT, device_of, observe, round_input
from worker.distillation.compression.parametrised import is_set
from worker.distillation.compression.quantisers import SMALLEST, scaled_gradient


class LearnedRounding(nn.Module):
    """Rounds an activation to 2^bits values, once `active`. The gradient of the scale is that of the paper, times
    `1 / sqrt(n Q_P)` for n values a sample; clipped activations have none."""

    of_a_transform = True
    signed: Tensor
    active: Tensor

    def __init__(self, bits: int, device: torch.device | None = None):
        super().__init__()
        self.bits = bits
        self.scale = nn.Parameter(torch.ones(1, device=device))
        self.register_buffer("signed", torch.zeros(1, dtype=torch.uint8, device=device))
        self.register_buffer("active", torch.zeros(1, dtype=torch.uint8, device=device))

    def limits(self) -> tuple[int, int]:
        """The least and the largest code."""
        return limits(self.bits, is_set(self.signed))

    def forward(self, x: Tensor) -> Tensor:
        if not is_set(self.active):
            return x
        least, largest = self.limits()
        if not torch.is_grad_enabled():
            return rounded(x, self.scale, least, largest)
        scale = scaled_gradient(self.scale, (x[0].numel() * largest) ** -0.5).abs().clamp(min=SMALLEST)
        clipped = (x / scale).clamp(least, largest)
        return (clipped + (clipped.round() - clipped).detach()) * scale


class FixedRounding(nn.Module):
    """The same after the training, with operators that every exporter knows."""

    scale: Tensor

    def __init__(self, learned: LearnedRounding):
        super().__init__()
        self.least, self.largest = learned.limits()
        self.register_buffer("scale", learned.scale.detach().clone())

    def forward(self, x: Tensor) -> Tensor:
        return rounded(x, self.scale, self.least, self.largest)


def limits(bits: int, signed: bool) -> tuple[int, int]:
    """The least and the largest code of so many bits."""
    return (-(2 ** (bits - 1)), 2 ** (bits - 1) - 1) if signed else (0, 2**bits - 1)


def rounded(x: Tensor, scale: Tensor, least: int, largest: int) -> Tensor:
    """The activation as it ships."""
    scale = scale.abs().clamp(min=SMALLEST)
    return (x / scale).clamp(least, largest).round() * scale


def attach_learned(network: nn.Module, bits: Mapping[str, int]) -> None:
    """Round the inputs of the layers at some paths to so many bits."""
    for path, own in bits.items():
        module = network.get_submodule(path)
        module.add_module(INPUT, LearnedRounding(own, device_of(module)))
        module.register_forward_pre_hook(round_input)


def learned_roundings(network: nn.Module) -> Iterator[tuple[str, LearnedRounding]]:
    """All such roundings with their paths."""
    return ((path, each) for path, each in network.named_modules() if isinstance(each, LearnedRounding))


def waits_for_images(network: nn.Module) -> bool:
    """Whether the network has roundings without scales."""
    return any(not is_set(each.active) for _, each in learned_roundings(network))


@torch.no_grad()
def start_scales(network: nn.Module, images: Tensor) -> None:
    """Set the scales to `2 mean|x| / sqrt(Q_P)` of the inputs on these images (N, C, H, W), as in the paper, and round from now on."""
    every = [each for _, each in learned_roundings(network)]
    sums: dict[nn.Module, tuple[Tensor, int, Tensor]] = {}

    def note(module: nn.Module, x: Tensor) -> None:
        total, count, least = sums.get(module, (x.new_zeros((), dtype=torch.float64), 0, x.new_zeros(())))
        sums[module] = total + x.abs().sum(dtype=torch.float64), count + x.numel(), least.minimum(x.amin())

    observe(network, every, images, note)
    for each in every:
        if each not in sums:
            continue
        total, count, least = sums[each]
        each.signed.fill_(bool(least < 0))
        each.scale.fill_(max(2 * float(total) / count / each.limits()[1] ** 0.5, 1e-8))
        each.active.fill_(True)


def with_fixed_rounding(network: nn.Module) -> nn.Module:
    """A copy of a finished network for the exporter."""
    copied = copy.deepcopy(network)
    for path, each in list(learned_roundings(copied)):
        copied.set_submodule(path, FixedRounding(each))
    return copied
