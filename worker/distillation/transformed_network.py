"""The transforms of a spec, and of a network that is built again."""

from collections.abc import Mapping, Sequence
from typing import Any

from torch import nn

from worker.distillation import registry
from worker.distillation.errors import Problem, SpecError
from worker.distillation.transform import ORDER, Transform

Entry = dict[str, Any]
"""A transform that was carried out on a network: its `spec`, and the `recipe` to apply before the weights are loaded."""
POINTER = "/transforms"


def make_transforms(specs: Sequence[Mapping[str, Any]]) -> list[Transform]:
    """A job's transforms.

    Raises:
        SpecError: one is unknown, comes twice, or comes after one that it has to precede.
    """
    made = [registry.make("transforms", spec, f"{POINTER}/{index}") for index, spec in enumerate(specs)]
    problems = []
    for index, transform in enumerate(made):
        earlier = [each.name for each in made[:index]]
        if transform.name in earlier:
            problems.append(Problem(f"{POINTER}/{index}", f"{transform.name} can be used once"))
        late = [name for name in earlier if place_of(name) > place_of(transform.name)]
        if late:
            problems.append(Problem(f"{POINTER}/{index}", f"{transform.name} must come before {late[0]}"))
    if problems:
        raise SpecError(problems, f"The order is {', '.join(ORDER)}.")
    return made


def place_of(name: str) -> int:
    """The place of a transform in the order."""
    return ORDER.index(name) if name in ORDER else len(ORDER)


def rebuild(network: nn.Module, entries: Sequence[Entry]) -> None:
    """Carry out finalised transforms on a network that was built again, before its weights are loaded.

    Raises:
        SpecError: there is no such transform.
    """
    for entry in entries:
        registry.make("transforms", entry["spec"], POINTER).apply(network, entry["recipe"])


def structural(entries: Sequence[Entry]) -> list[Entry]:
    """Those that change modules, which a network that starts from these weights has too."""
    return [entry for entry in entries if registry.find("transforms", entry["spec"]["name"]).structural]
