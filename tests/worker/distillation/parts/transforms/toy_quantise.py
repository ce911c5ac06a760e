"""Weights rounded to few values, with a straight-through gradient to the full ones."""

import torch
from torch import nn

from worker.distillation.compression.parametrised import bake, before, parametrise, parts
from worker.distillation.transform import Transform


class Rounded(nn.Module):
    """Four values a tensor; counts its steps in a buffer."""

    def __init__(self):
        super().__init__()
        self.register_buffer("steps", torch.zeros((), dtype=torch.int64))

    def forward(self, weight):
        low, high = weight.detach().min(), weight.detach().max()
        rounded = ((weight - low) / (high - low) * 3).round() / 3 * (high - low) + low
        return weight + (rounded - weight).detach()


class ToyQuantise(Transform):
    """Quantises convolutions and linear layers, and counts its steps."""

    def plan(self, network, setting):
        return {"layers": list(setting.layers)}

    def apply(self, network, recipe):
        for path in recipe["layers"]:
            parametrise(network.get_submodule(path), Rounded())

    def after_step(self, network, progress, setting):
        for _, _, part in parts(network, Rounded):
            part.steps += 1

    def finalize(self, network, setting, recipe):
        for _, module, part in parts(network, Rounded):
            bake(module, part, part(before(module, part)))
        return {"layers": []}
