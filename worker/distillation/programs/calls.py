"""The calls of a program's modules: within each other like brackets."""

from collections.abc import Iterator, Sequence
from typing import Any

from worker.distillation.programs.format import CALLS, DEPTH, NAME, Call, check_name, is_integer, refuse


def read_calls(values: list[Any], of_nodes: Sequence[int]) -> tuple[Call, ...]:
    """The calls; each lies within its caller, and its nodes follow each other.

    Raises:
        UploadError: they do not.
    """
    if not 0 < len(values) <= CALLS:
        raise refuse(f"a graph has no calls, or more than {CALLS}")
    calls: list[Call] = []
    for number, value in enumerate(values):
        if not isinstance(value, list) or len(value) != 3 or not isinstance(value[2], str) or len(value[2]) > NAME:
            raise refuse(f"call {number} is not a list of caller, path and class name")
        caller, path, _ = value
        if number == 0:
            if caller != -1 or path != "":
                raise refuse("call 0 is not that of the whole network")
        else:
            if not is_integer(caller, 0, number - 1):
                raise refuse(f"call {number} is made by none before it")
            check_name(path, "module")
            around = calls[caller].path
            if around and not path.startswith(f"{around}."):
                raise refuse(f"the module {path!r} is called by {around!r}, in which it is not")
        calls.append(Call(caller, path))
    _check_brackets(calls, of_nodes)
    return tuple(calls)


def _check_brackets(calls: Sequence[Call], of_nodes: Sequence[int]) -> None:
    """See that every call begins once, in order, and that its nodes and the calls within follow each other."""
    stack, begun = [0], 0
    for call in of_nodes:
        chain = list(_chain(calls, call))
        while stack[-1] not in chain:
            stack.pop()
        for each in chain[chain.index(stack[-1]) + 1 :]:
            if each != begun + 1:
                raise refuse(f"call {each} begins out of order, or twice")
            begun = each
            stack.append(each)
    if begun != len(calls) - 1:
        raise refuse("a call has no nodes")


def _chain(calls: Sequence[Call], call: int) -> Iterator[int]:
    """From call 0 to a call."""
    found = [call]
    while found[-1] > 0:
        found.append(calls[found[-1]].caller)
        if len(found) > DEPTH + 1:
            raise refuse(f"calls lie more than {DEPTH} deep within each other")
    return reversed(found)
