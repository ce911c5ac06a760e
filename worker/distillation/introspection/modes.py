"""Contexts that restore a network's train and eval modes or its buffers."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import nn


@contextmanager
def statistics_kept(network: nn.Module) -> Iterator[None]:
    """A context that restores the network's buffers at its end, such as BatchNorm statistics after a pass in training mode."""
    saved = {name: buffer.clone() for name, buffer in network.named_buffers()}
    try:
        yield
    finally:
        with torch.no_grad():
            for name, buffer in network.named_buffers():
                buffer.copy_(saved[name])


@contextmanager
def modes_kept(network: nn.Module) -> Iterator[None]:
    """A context in which the network is in eval mode; it restores the modes of all modules at its end."""
    modes = {module: module.training for module in network.modules()}
    network.eval()
    try:
        yield
    finally:
        for module, training in modes.items():
            module.training = training
