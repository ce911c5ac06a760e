"""Network and Pattern: how a file of this folder registers its networks, by name or by a pattern of names."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import nn
from torch.overrides import TorchFunctionMode

from worker.distillation.contract import InputContract
from worker.distillation.errors import Problem, SpecError


class _ConstantsOnCpu(TorchFunctionMode):
    """A context in which `linspace`, `arange` and `tensor` create tensors on the CPU instead of the default device."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = dict(kwargs or {})
        if func in (torch.linspace, torch.arange, torch.tensor):
            kwargs.setdefault("device", "cpu")
        return func(*args, **kwargs)


def on_any_device(build: Callable[[], nn.Module]) -> nn.Module:
    """The network from `build` on torch's default device; this may be meta even if `build` reads values of tensors."""
    try:
        return build()
    except NotImplementedError:
        with _ConstantsOnCpu():
            network = build()
        return network.to(torch.empty(0).device)


def check_size(contract: InputContract, least: int) -> None:
    """Check that height and width of the images are at least `least` pixels.

    Raises:
        SpecError: they are not.
    """
    if min(contract.height, contract.width) < least:
        message = f"requires images of at least {least}x{least} pixels, not {contract.height}x{contract.width}"
        raise SpecError([Problem("/network", message)])


@dataclass(frozen=True)
class NoOptions:
    """No options."""


WeightShapes = Sequence[tuple[int, ...]]
"""Shapes of a state dict's convolutions and linear layers, in order."""


def default_options(shapes: WeightShapes) -> Iterable[dict[str, Any]]:
    """No options, whatever the shapes are."""
    return ({},)


def of_layers(count: int) -> Callable[[WeightShapes], Iterable[dict[str, Any]]]:
    """A `guess` for a network without options that has so many convolutions and linear layers."""
    return lambda shapes: ({},) if len(shapes) == count else ()


def by_name_alone(shapes: WeightShapes) -> Iterable[dict[str, Any]]:
    """Never: for networks whose weights do not show what they compute, so that their name and options have to be given."""
    return ()


@dataclass(frozen=True)
class Network:
    """One network that can be built by name.

    `build(classes, contract, options)` returns it with random weights; `options` is an instance of `options_type`.
    """

    description: str
    build: Callable[[int, InputContract, Any], nn.Module]
    paper: str = ""
    options_type: type = NoOptions
    widths: tuple[str, ...] = ()
    """The options that hold widths: numbers of channels, or lists of them. Networks that differ in these alone have the same
    structure."""
    as_family: tuple[str, Mapping[str, Any]] = ("", {})
    """The network with `widths` that builds this one, and its options; empty if there is none."""
    guess: Callable[[WeightShapes], Iterable[dict[str, Any]]] = default_options
    """Options with which the network may have weights of these shapes; a few at most, since each is built."""
    unseen: Mapping[str, str] = field(default_factory=dict)
    """What the network computes by default that its weights do not show, such as its activation."""


def only_default_options(name: str, shapes: WeightShapes) -> Iterable[dict[str, Any]]:
    """No options, whatever the shapes are."""
    return ({},)


def never_rare(name: str, options: Mapping[str, Any], contract: InputContract) -> bool:
    """False: all options are usual."""
    return False


@dataclass(frozen=True)
class Pattern:
    """Networks of a library: all names that begin with `prefix` and match `pattern`.

    `build(name, classes, contract, options)` gets the name without the prefix, as do `guess` and `rare`. It raises SpecErrors with
    the pointer `/network`.
    """

    prefix: str
    pattern: str
    description: str
    build: Callable[[str, int, InputContract, Any], nn.Module]
    options_type: type = NoOptions
    guess: Callable[[str, WeightShapes], Iterable[dict[str, Any]]] = only_default_options
    """Options with which a network may have weights of these shapes."""
    rare: Callable[[str, Mapping[str, Any], InputContract], bool] = never_rare
    """Whether options that the weights do not show are so rare that others are assumed."""


Networks = Mapping[str, Network]


def from_library(network: nn.Module, call: str) -> nn.Module:
    """The network itself, which remembers the call of its library that made it, such as `timm.create_model(…)`."""
    vars(network)["library_call"] = call
    return network


def library_call(network: nn.Module) -> str | None:
    """The library's call that made a network; None if no library made it."""
    call = vars(network).get("library_call")
    return call if isinstance(call, str) else None
