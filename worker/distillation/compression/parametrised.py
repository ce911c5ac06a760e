"""Weights that are computed from others in training: a list of parametrisations for each weight.

The deep copy of a network with parametrisations shares its modules' classes (torch.nn.utils.parametrize), so only the network itself
may lose them: a copy is made by building the network again.
"""

from collections.abc import Iterator
from typing import Any, TypeVar

import torch
from torch import nn
from torch.nn.utils import parametrize

M = TypeVar("M", bound=nn.Module)


def is_set(flag: torch.Tensor) -> bool:
    """Whether a flag (one bool) is true; false on the meta device."""
    return flag.device.type != "meta" and bool(flag)


def parametrise(module: nn.Module, by: nn.Module) -> None:
    """Compute the module's weight by `by`, from the weight as it is computed now."""
    by.train(module.training)
    parametrize.register_parametrization(module, "weight", by, unsafe=True)


def parts(network: nn.Module, kind: type[M]) -> Iterator[tuple[str, nn.Module, M]]:
    """Path, module and parametrisation of every weight that is computed by one of a kind."""
    for path, module in list(network.named_modules()):
        if parametrize.is_parametrized(module, "weight"):
            for part in module.parametrizations["weight"]:
                if isinstance(part, kind):
                    yield path, module, part


def latent(module: nn.Module) -> nn.Parameter:
    """The parameter from which a parametrised weight is computed."""
    weights: Any = module.parametrizations
    return weights["weight"].original


@torch.no_grad()
def before(module: nn.Module, part: nn.Module) -> torch.Tensor:
    """The weight as one of its parametrisations receives it."""
    listed: Any = module.parametrizations
    value: torch.Tensor = listed["weight"].original
    for each in listed["weight"]:
        if each is part:
            break
        value = each(value)
    return value.detach()


@torch.no_grad()
def bake(module: nn.Module, part: nn.Module, value: torch.Tensor) -> None:
    """Replace the weight's first parametrisation, which is `part`, and what it was computed from, by `value`."""
    listed: Any = module.parametrizations
    own = list(listed["weight"])
    if own[0] is not part:
        raise RuntimeError("the weight has an earlier parametrisation, which has to be replaced first")
    weight = listed["weight"].original
    trained = weight.requires_grad
    parametrize.remove_parametrizations(module, "weight", leave_parametrized=False)
    parameter: Any = module.weight
    parameter.data = value.detach().to(parameter.dtype).contiguous().clone()
    parameter.requires_grad_(trained)
    for other in own[1:]:
        parametrise(module, other)
