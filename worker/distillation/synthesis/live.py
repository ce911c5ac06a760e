"""Reading live networks without leaving a trace in them."""

from collections.abc import Iterable, Iterator
from contextlib import contextmanager

from torch import nn


@contextmanager
def evaluating(networks: Iterable[nn.Module]) -> Iterator[None]:
    """The networks in eval mode (no dropout, BatchNorm statistics read and not moved); every module's mode is put back after."""
    modes = [(module, module.training) for network in networks for module in network.modules()]
    try:
        for module, _ in modes:
            module.training = False
        yield
    finally:
        for module, training in modes:
            module.training = training
