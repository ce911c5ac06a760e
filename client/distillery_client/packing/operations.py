"""Operations of an export: which are left out or renamed, and what they may change or return."""

import operator
from collections.abc import Callable
from typing import Any

import torch

RENAMED = {
    "aten.empty.memory_format": "aten.zeros.default",
    "aten.new_empty.default": "aten.new_zeros.default",
    "aten.empty_like.default": "aten.zeros_like.default",
}
"""Operations whose result would depend on what was in memory before, and what takes their place."""
DROPPED_ARGUMENTS = ("layout", "pin_memory")
DROPPED = (
    "aten._assert_tensor_metadata.default",
    "aten._assert_async.msg",
    "aten._assert_scalar.default",
    "aten.sym_constrain_range.default",
    "aten.sym_constrain_range_for_size.default",
)
MAY_RETURN_ARGUMENT = (
    "aten.dropout.default", "aten.feature_dropout.default", "aten.alpha_dropout.default", "aten.type_as.default",
    "aten.einsum.default", "aten.pad.default",
)  # fmt: skip
"""Operations that do not say so in their schema."""


def resolve(name: str) -> Callable[..., Any]:
    """What a program of this file's own making calls."""
    found: Any = {"aten": torch.ops.aten, "operator": operator, "torch": torch}[name.partition(".")[0]]
    for part in name.split(".")[1:]:
        found = getattr(found, part)
    resolved: Callable[..., Any] = found
    return resolved


def may_share(name: str) -> bool:
    """Whether what an operation gives may lie in the memory of an argument; `compare` finds out where this is wrong."""
    if name.startswith(("operator.", "torch.")) or name in MAY_RETURN_ARGUMENT:
        return True
    target: Any = resolve(name)
    return any(each.alias_info is not None for each in target._schema.returns)


def changes(name: str) -> bool:
    """Whether an operation writes into an argument."""
    return name.startswith("aten.") and bool(resolve(name)._schema.is_mutable)  # type: ignore[attr-defined]


def name_of(target: Any) -> str:
    """The name of what an exported node calls."""
    if isinstance(target, torch._ops.OpOverload):
        return str(target)
    module = getattr(target, "__module__", "").lstrip("_")
    return f"{module}.{getattr(target, '__name__', target)}"
