"""Whole pickled networks (`torch.save(network, path)`): read their weights under the names of `state_dict()`, without their code."""

from typing import Any

from worker.distillation.uploads.weights_file.budget import Budget
from worker.distillation.uploads.weights_file.inert import Made
from worker.distillation.uploads.weights_file.leaves import Leaf
from worker.distillation.uploads.weights_file.rebuilding import is_leaf

DEEPEST = 64
STEPS_EACH = 10
"""Cost in steps of a module and of each of its tensors. A file may contain a module under many paths."""


def is_module(node: Any) -> bool:
    """Whether an inert object stands for an `nn.Module`, recognised by the attributes that all modules have."""
    if type(node) is not Made:
        return False
    attributes = node.attributes()
    return all(type(attributes.get(name)) is dict for name in ("_parameters", "_buffers", "_modules"))


def module_state(node: Made, budget: Budget) -> dict[str, Leaf]:
    """Parameters and persistent buffers by name, in the order of `state_dict()`."""
    state: dict[str, Leaf] = {}
    _collect(node, "", state, budget, DEEPEST)
    return state


def _collect(node: Made, prefix: str, state: dict[str, Leaf], budget: Budget, deepest: int) -> None:
    attributes = node.attributes()
    passing = _members(attributes.get("_non_persistent_buffers_set"))
    budget.spend(STEPS_EACH * (1 + len(attributes["_parameters"]) + len(attributes["_buffers"])))
    for kind, left_out in (("_parameters", set()), ("_buffers", passing)):
        for name, value in attributes[kind].items():
            if type(name) is str and name not in left_out and is_leaf(value):
                state[prefix + name] = value
    for name, child in attributes["_modules"].items():
        budget.spend()
        if type(name) is str and deepest and is_module(child):
            _collect(child, f"{prefix}{name}.", state, budget, deepest - 1)


def _members(node: Any) -> set[str]:
    """The names in a pickled set, which is filled later or built from a list."""
    if type(node) is not Made:
        return set()
    listed = node.args[0] if node.args and type(node.args[0]) in (list, tuple) else []
    return {name for name in (*node.members, *listed) if type(name) is str}
