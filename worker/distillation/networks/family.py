"""Family: the networks of one file, by name or by a pattern of names."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from torch import nn

from worker.distillation.source import InputContract


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
