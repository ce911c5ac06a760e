"""Networks by name, always with randomly initialised weights: nothing is downloaded.

Belongs here: network definitions, with `NETWORKS` (name to Network) or `PATTERN` (the names of a library), and networks
composed of others: ensembles, and students with the teacher's classifier. Does not: inspecting networks
(`introspection/`), their weights (`initial_weights/`, `uploads/`). May import `contract.py`, `parameters.py`,
`precision.py`, `errors.py` and `introspection/`.
"""

import difflib
import importlib
import re
from functools import cache
from pathlib import Path
from typing import Any

from torch import nn

from worker.distillation.contract import InputContract
from worker.distillation.errors import Problem, SpecError
from worker.distillation.networks.family import Network, Pattern
from worker.distillation.parameters import parse


def build(name: str, classes: int, contract: InputContract, options: dict[str, Any] | None = None) -> nn.Module:
    """A network with random weights from torch's global generator, on torch's default device.

    Raises:
        SpecError: there is no such network, an option is invalid (`/options/NAME`), or the network does not support these
            classes or images of this contract (`/network`).
    """
    pattern = next((pattern for pattern in patterns() if name.startswith(pattern.prefix)), None)
    if pattern is not None:
        if not re.fullmatch(pattern.pattern, name):
            raise SpecError([Problem("/network", f"{name!r} does not match the pattern {pattern.pattern}")])
        given: Any = parse(pattern.options_type, options or {}, "/options")
        return pattern.build(name.removeprefix(pattern.prefix), classes, contract, given)
    network = named().get(name)
    if network is None:
        close = difflib.get_close_matches(name, names(), n=3) or names()
        raise SpecError([Problem("/network", f"there is no network {name!r}; use for example {', '.join(close)}")])
    return network.build(classes, contract, parse(network.options_type, options or {}, "/options"))


def names() -> tuple[str, ...]:
    """The names of the networks defined here; see `patterns` for those of libraries."""
    return tuple(sorted(named()))


@cache
def named() -> dict[str, Network]:
    return {name: network for file in _files() for name, network in getattr(file, "NETWORKS", {}).items()}


@cache
def patterns() -> tuple[Pattern, ...]:
    return tuple(file.PATTERN for file in _files() if hasattr(file, "PATTERN"))


@cache
def _files() -> tuple[Any, ...]:
    here = Path(__file__).parent
    paths = sorted(path.relative_to(here).with_suffix("") for path in here.rglob("*.py") if path.stem != "__init__")
    return tuple(importlib.import_module(".".join((__name__, *path.parts))) for path in paths)
