"""A copy of a network to measure or export: on the CPU, in eval mode, single precision and the default layout."""

import copy

import torch
from torch import Tensor, nn

from worker.distillation.contract import InputContract


def portable(network: nn.Module) -> nn.Module:
    """The copy; the network itself is left as it is."""
    copied = copy.deepcopy(network).to("cpu", torch.float32)
    return copied.to(memory_format=torch.contiguous_format).eval().requires_grad_(False)


def random_images(contract: InputContract, count: int, seed: int = 0) -> Tensor:
    """Normal noise (count, C, H, W) in single precision, the same for the same seed, without touching torch's global generator."""
    shape = (count, contract.channels, contract.height, contract.width)
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float32)
