"""Reading live networks without changing their state."""

from collections.abc import Iterable, Iterator
from contextlib import contextmanager

from torch import nn


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
