"""Weights rounded to few values, with a straight-through gradient to the full ones."""

import torch
from torch import nn
from torch.nn.utils import parametrize

from worker.distillation.transform import Transform


class Rounded(nn.Module):
    """Four values a tensor."""

    def forward(self, weight):
        low, high = weight.detach().min(), weight.detach().max()
        rounded = ((weight - low) / (high - low) * 3).round() / 3 * (high - low) + low
        return weight + (rounded - weight).detach()


class ToyQuantise(Transform):
    """Quantises convolutions and linear layers, and counts its steps."""

    def __init__(self, parameters=None):
        super().__init__(parameters)
        self.steps = 0

    def prepare(self, network):
        for module in network.modules():
            if isinstance(module, (nn.Conv2d, nn.Linear)):
                parametrize.register_parametrization(module, "weight", Rounded())

    def after_step(self, network):
        self.steps += 1

    def finalize(self, network):
        for module in network.modules():
            if parametrize.is_parametrized(module):
                with torch.no_grad():
                    parametrize.remove_parametrizations(module, "weight", leave_parametrized=True)

    def state_dict(self):
        return {"steps": self.steps}

    def load_state_dict(self, state):
        self.steps = state["steps"]
