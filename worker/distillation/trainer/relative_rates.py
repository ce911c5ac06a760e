"""Learning rates relative to the scale of each layer's initial weights.

Adam moves every weight by about the learning rate in a step, whatever its size. A student that starts as slices of a teacher
whose weights are several times larger than usual barely moves. The rule is ours.
"""

from torch import nn

LARGEST = 10.0


def factors(network: nn.Module) -> dict[nn.Parameter, float]:
    """The factor of the learning rate of each weight, and of its layer's bias: `rms(W) sqrt(3 fan_in)`, from 1 to 10.

    It is 1 for torch's default initial weights, which are uniform within `1 / sqrt(fan_in)`. Only layers with a weight of
    two or more dimensions have one.
    """
    found: dict[nn.Parameter, float] = {}
    for module in network.modules():
        weight = getattr(module, "weight", None)
        if not isinstance(weight, nn.Parameter) or weight.ndim < 2:
            continue
        scale = float(weight.detach().float().square().mean().sqrt()) * (3 * weight[0].numel()) ** 0.5
        factor = min(max(scale, 1.0), LARGEST)
        own = module.parameters(recurse=False)
        found |= dict.fromkeys((parameter for parameter in own if parameter.requires_grad), factor)
    return found
