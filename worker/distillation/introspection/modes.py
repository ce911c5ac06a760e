"""Reading live networks: their modes and statistics are as before at the end."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import nn


@contextmanager
def statistics_kept(network: nn.Module) -> Iterator[None]:
    """Within this context a forward pass in training mode leaves the network's buffers as they were."""
    saved = {name: buffer.clone() for name, buffer in network.named_buffers()}
    try:
        yield
    finally:
        with torch.no_grad():
            for name, buffer in network.named_buffers():
                buffer.copy_(saved[name])


@contextmanager
def modes_kept(network: nn.Module) -> Iterator[None]:
    """Within this context the network is in evaluation mode; its modules' modes are as before at the end."""
    modes = {module: module.training for module in network.modules()}
    network.eval()
    try:
        yield
    finally:
        for module, training in modes.items():
            module.training = training
