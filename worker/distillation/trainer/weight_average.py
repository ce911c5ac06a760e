"""A running average of a network's weights during training.

Polyak, Juditsky, "Acceleration of stochastic approximation by averaging", SIAM J. Control Optim. 30(4), 1992, here an
exponential moving average; its decay increases over the first steps, so that the initial weights soon lose influence.
"""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn


def decay_at(step: int, decay: float) -> float:
    """min(decay, (1 + n) / (10 + n)) for step n, counted from 0."""
    return min(decay, (1 + step) / (10 + step))


class RunningAverage:
    """The average of a network's parameters and buffers over the steps, in float32.

    BatchNorm running statistics are averaged like weights; values that are not floating-point (counters) are copied.
    """

    def __init__(self, network: nn.Module, decay: float):
        self.decay = decay
        self.steps = 0
        self.values = {name: _copy(tensor) for name, tensor in network.state_dict().items()}

    @torch.no_grad()
    def update(self, network: nn.Module) -> None:
        """Add the network's current weights to the average."""
        weight = 1 - decay_at(self.steps, self.decay)
        averaged, current = [], []
        for name, tensor in network.state_dict().items():
            if tensor.is_floating_point():
                averaged.append(self.values[name])
                current.append(tensor.float())
            else:
                self.values[name].copy_(tensor)
        torch._foreach_lerp_(averaged, current, weight)
        self.steps += 1

    def state_dict(self) -> dict[str, Any]:
        return {"steps": self.steps, "values": self.values}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restore what `state_dict` returned."""
        self.steps = state["steps"]
        for name, value in self.values.items():
            value.copy_(state["values"][name])


def _copy(tensor: Tensor) -> Tensor:
    copy = tensor.detach().clone()
    return copy.float() if copy.is_floating_point() else copy
