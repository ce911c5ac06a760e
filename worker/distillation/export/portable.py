"""A copy of a network for measuring or exporting: on the CPU, in eval mode, float32 and the default memory format."""

import copy

import torch
from torch import Tensor, nn

from worker.distillation.contract import InputContract


def portable(network: nn.Module) -> nn.Module:
    """The copy; the network itself is not changed."""
    copied = copy.deepcopy(network).to("cpu", torch.float32)
    return copied.to(memory_format=torch.contiguous_format).eval().requires_grad_(False)


def random_images(contract: InputContract, count: int, seed: int = 0) -> Tensor:
    """Normal noise (count, C, H, W) in float32, a function of the seed; torch's global generator is not used."""
    shape = (count, contract.channels, contract.height, contract.width)
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float32)
