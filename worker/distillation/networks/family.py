"""Family: the networks of one file, by name or by a pattern of names."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn
from torch.overrides import TorchFunctionMode

from worker.distillation.contract import InputContract
from worker.distillation.errors import Problem, SpecError


class _NumbersOnCpu(TorchFunctionMode):
    """A context in which `linspace`, `arange` and `tensor` are on the CPU, whatever the default device."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = dict(kwargs or {})
        if func in (torch.linspace, torch.arange, torch.tensor):
            kwargs.setdefault("device", "cpu")
        return func(*args, **kwargs)


def on_any_device(build: Callable[[], nn.Module]) -> nn.Module:
    """What `build` makes, on torch's default device, also where that is meta and a builder reads numbers out of tensors."""
    try:
        return build()
    except NotImplementedError:
        with _NumbersOnCpu():
            network = build()
        return network.to(torch.empty(0).device)


def check_size(contract: InputContract, least: int) -> None:
    """See that images have at least so many pixels either way.

    Raises:
        SpecError: they have fewer.
    """
    if min(contract.height, contract.width) < least:
        message = f"reads images of at least {least}x{least} pixels, not {contract.height}x{contract.width}"
        raise SpecError([Problem("/network", message)])


@dataclass(frozen=True)
class NoOptions:
    """No options."""


@dataclass(frozen=True)
class Network:
    """One network that can be built by name.

    `build(classes, contract, options)` makes it with fresh weights, `options` being an instance of `options_type`.
    """

    description: str
    build: Callable[[int, InputContract, Any], nn.Module]
    paper: str = ""
    options_type: type = NoOptions
    widths: str | None = None
    """The option that lists the layers' widths: two networks with lists of one length are alike but for these."""


@dataclass(frozen=True)
class Pattern:
    """Networks of a library: all names that begin with `prefix` and match `pattern`.

    `build(name, classes, contract)` gets the name without the prefix.

    Its errors are SpecErrors with the pointer `/network`.
    """

    prefix: str
    pattern: str
    description: str
    build: Callable[[str, int, InputContract], nn.Module]


Networks = Mapping[str, Network]
