"""Candidates for a network's weights in a file: every mapping of names to tensors, and every whole pickled network."""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

from worker.distillation.limits import UploadLimits
from worker.distillation.uploads.folding import COUNTERS, fold
from worker.distillation.uploads.pickled_modules import STEPS_EACH, is_module, module_state
from worker.distillation.uploads.weights_file.budget import Budget
from worker.distillation.uploads.weights_file.inert import Made
from worker.distillation.uploads.weights_file.leaves import Leaf
from worker.distillation.uploads.weights_file.numpy_arrays import array_of
from worker.distillation.uploads.weights_file.rebuilding import is_leaf

DEEPEST = 16
DEEPEST_JOINED = 6
LONGEST_NAME = 512
LONGEST_PATH = 300


@dataclass(frozen=True)
class Candidate:
    """Tensors that could be a network's weights. `path` is their place in the file, joined by dots; empty for the root.

    `folded` are the names of weights computed from parts. `updates` is the number of updates of a weight average, if the
    file contains it. `joined` is true for mappings of mappings. `head` is the path of the classifier in the file and the one that
    it has in `tensors`, if these differ. `names_of` is the code whose names were translated into those of a library.
    """

    path: str
    tensors: dict[str, Leaf]
    folded: tuple[str, ...] = ()
    updates: int | None = None
    joined: bool = False
    head: tuple[str, str] | None = None
    names_of: str = ""


def candidates(root: Any, limits: UploadLimits) -> list[Candidate]:
    """All candidates, outer ones first.

    Mappings of mappings, such as `{"features": {...}, "classifier": {...}}`, are candidates too; they come after all
    others, inner ones first.
    """
    budget = Budget(limits.steps, "the file")
    found: list[Candidate] = []
    joined: list[Candidate] = []
    for path, node in _walk(root, budget):
        if is_module(node):
            found.append(_candidate(path, module_state(node, budget)))
        elif own := _own_tensors(node):
            found.append(_candidate(path, own))
        if type(node) is dict and path.count(".") < 2:
            together = dict(_joined(node, "", budget, DEEPEST_JOINED))
            if together.keys() != _own_tensors(node).keys():
                joined.append(replace(_candidate(path, together), joined=True))
    return [each for each in (*found, *reversed(joined)) if each.tensors]


def _walk(root: Any, budget: Budget) -> Iterator[tuple[str, Any]]:
    """Every container once, breadth first, to a bounded depth; shared containers are visited once."""
    seen: set[int] = set()
    level: list[tuple[str, Any]] = [("", root)]
    for _ in range(DEEPEST):
        below: list[tuple[str, Any]] = []
        for path, node in level:
            if id(node) in seen or type(node) not in (dict, list, tuple, Made):
                continue
            seen.add(id(node))
            yield path, node
            children = _children(node)
            budget.spend(1 + len(children))
            below.extend(
                (_path(path, key), child) for key, child in children if type(child) in (dict, list, tuple, Made)
            )
        level = below


def _children(node: Any) -> list[tuple[Any, Any]]:
    if type(node) is dict:
        return list(node.items())
    if type(node) is Made:
        inner = {} if is_module(node) else node.attributes()
        named = [*inner.items(), *node.entries.items()]
        return [*named, *(("", value) for value in (*node.args, *node.members))]
    return list(enumerate(node))


def _path(path: str, key: Any) -> str:
    name = str(key)[:80] if type(key) in (str, int) else "?"
    return (f"{path}.{name}" if path and name else path or name)[:LONGEST_PATH]


def _own_tensors(node: Any) -> dict[str, Leaf]:
    """The tensors that are direct values of a mapping."""
    pairs = node if type(node) is dict else {**node.attributes(), **node.entries} if type(node) is Made else {}
    return dict(_tensors(pairs))


def _tensors(pairs: dict[Any, Any]) -> Iterator[tuple[str, Leaf]]:
    for key, value in pairs.items():
        if type(key) is str and len(key) <= LONGEST_NAME and key.isprintable():
            if is_leaf(value):
                yield key, value
            elif type(value) is Made and (array := array_of(value)) is not None:
                yield key, array


def _joined(node: dict[Any, Any], prefix: str, budget: Budget, deepest: int) -> Iterator[tuple[str, Leaf]]:
    budget.spend(1 + len(node))
    for name, tensor in _tensors(node):
        budget.spend(STEPS_EACH)
        yield prefix + name, tensor
    for key, value in node.items():
        if type(key) is str and type(value) is dict and deepest and len(prefix) + len(key) < LONGEST_NAME:
            yield from _joined(value, f"{prefix}{key}.", budget, deepest - 1)


def _candidate(path: str, tensors: dict[str, Leaf]) -> Candidate:
    updates = _updates(tensors)
    kept = {name: leaf for name, leaf in tensors.items() if name.rpartition(".")[2] not in COUNTERS}
    folded = fold(kept)
    return Candidate(path, folded.tensors, tuple(folded.names), updates)


def _updates(tensors: dict[str, Leaf]) -> int | None:
    counter = tensors.get("n_averaged")
    if counter is None or counter.shape not in ((), (1,)) or counter.dtype.is_floating_point:
        return None
    return int(counter.read().reshape(()).item())
