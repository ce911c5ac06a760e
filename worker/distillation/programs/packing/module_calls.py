"""The calls of modules in an exported graph: which there are, and which one each node belongs to."""

from collections.abc import Iterator, Sequence
from typing import Any

ROOT = "L__self__"
Stack = tuple[tuple[str, str, str], ...]
"""The calls around a node, outermost first: key (with the number of the call), path, class name."""


def calls_of(nodes: Sequence[list[Any]], stacks: Sequence[Stack]) -> list[list[Any]]:
    """The calls of modules as [caller, path, class name]; every node gets the number of its own. `stacks` are those of
    `stack_of` for each node.

    Calls lie within each other like brackets. A node whose call is over belongs to the innermost that is not.
    """
    calls: list[list[Any]] = [[-1, "", ""]]
    numbers: dict[tuple[str, ...], int] = {}
    open_calls: list[tuple[tuple[str, ...], int]] = []
    over: set[tuple[str, ...]] = set()
    for node, stack in zip(nodes, stacks, strict=True):
        place: list[tuple[str, ...]] = []
        entries = list(_nested(stack))
        for depth in range(len(entries)):
            key = tuple(entry[0] for entry in entries[: depth + 1])
            if key in over:
                break
            place.append(key)
        while open_calls and open_calls[-1][0] not in place:
            over.add(open_calls.pop()[0])
        for depth, key in enumerate(place):
            if key not in numbers:
                caller = numbers[place[depth - 1]] if depth else 0
                numbers[key] = len(calls)
                calls.append([caller, entries[depth][1], entries[depth][2]])
                open_calls.append((key, numbers[key]))
        node[1] = open_calls[-1][1] if open_calls else 0
    calls[0][2] = next((stack[0][2] for stack in stacks if stack), "")
    return calls


def stack_of(node: Any) -> Stack:
    """The calls around a node of an exported graph."""
    stack = node.meta.get("nn_module_stack") or {}
    entries = ((key, *value) for key, value in stack.items() if key.startswith(ROOT))
    return tuple((str(key), str(path), str(kind).rpartition(".")[2]) for key, path, kind in entries)


def _nested(stack: Stack) -> Iterator[tuple[str, str, str]]:
    """The entries whose path lies within that of the entry before: a module that is held elsewhere has no call of its own."""
    around = ""
    for entry in stack:
        path = entry[1]
        if path and (not around or path.startswith(f"{around}.")):
            around = path
            yield entry
        elif path:
            return
