"""A finished network without what its transforms left in it: plain modules with plain weights."""

import copy

from torch import nn

from worker.distillation.compression.activations import detach
from worker.distillation.compression.storage import forget


def plain(network: nn.Module) -> nn.Module:
    """A network with the same weights, in which no activation is rounded and whose state dict has no tables; a copy if it is another."""
    if not is_transformed(network):
        return network
    return detach(forget(copy.deepcopy(network)))


def is_transformed(network: nn.Module) -> bool:
    """Whether transforms left something in the network."""
    return any(hasattr(module, "stored") or getattr(module, "of_a_transform", False) for module in network.modules())
