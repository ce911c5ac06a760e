"""Learning rates relative to the scale of each layer's initial weights.

Adam moves every weight by about the learning rate in a step, whatever its size. A student that starts as slices of a teacher
whose weights are several times larger than usual barely moves. The rule is ours.
"""

from statistics import median
from typing import Literal

from torch import nn

LARGEST = 10.0
LARGE = 3.0
"""Median scale of the layers from which on weights are large. Weights of common initialisations are below it: torch's own have
1, Kaiming's normal ones 2.4."""


def factors_for(network: nn.Module, chosen: Literal["off", "on", "auto"]) -> dict[nn.Parameter, float] | None:
    """The factors of a network with its initial weights, or None if its layers have one learning rate."""
    if chosen == "off" or (chosen == "auto" and not has_large_weights(network)):
        return None
    return factors(network)


def has_large_weights(network: nn.Module) -> bool:
    """Whether half of the layers with weights of two or more dimensions have a scale of `LARGE` or more."""
    found = [scale(weight) for _, weight in _layers(network)]
    return bool(found) and median(found) >= LARGE


def factors(network: nn.Module) -> dict[nn.Parameter, float]:
    """The factor of the learning rate of each weight, and of its layer's bias: its scale, from 1 to 10.

    Only layers with a weight of two or more dimensions have one.
    """
    found: dict[nn.Parameter, float] = {}
    for module, weight in _layers(network):
        factor = min(max(scale(weight), 1.0), LARGEST)
        own = module.parameters(recurse=False)
        found |= dict.fromkeys((parameter for parameter in own if parameter.requires_grad), factor)
    return found


def scale(weight: nn.Parameter) -> float:
    """`rms(W) sqrt(3 fan_in)`, which is 1 for torch's default initial weights: they are uniform within `1 / sqrt(fan_in)`."""
    return float(weight.detach().float().square().mean().sqrt()) * (3 * weight[0].numel()) ** 0.5


def _layers(network: nn.Module) -> list[tuple[nn.Module, nn.Parameter]]:
    """Modules with a weight of two or more dimensions."""
    weights = [(module, getattr(module, "weight", None)) for module in network.modules()]
    return [(module, weight) for module, weight in weights if isinstance(weight, nn.Parameter) and weight.ndim > 1]
