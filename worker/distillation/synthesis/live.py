"""Reading live networks without changing their state."""

from collections.abc import Iterable, Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn


@contextmanager
def evaluating(networks: Iterable[nn.Module]) -> Iterator[None]:
    """The networks in eval mode (no dropout; BatchNorm uses its running statistics and does not update them); every
    module's mode is restored afterwards."""
    modes = [(module, module.training) for network in networks for module in network.modules()]
    try:
        for module, _ in modes:
            module.training = False
        yield
    finally:
        for module, training in modes:
            module.training = training


def accepts(network: nn.Module, image: Tensor) -> bool:
    """Whether a network can read images of this size (B, C, H, W)."""
    with torch.no_grad(), evaluating([network]):
        try:
            network(image)
        except RuntimeError:  # torch's only error for shapes that do not fit
            return False
    return True
