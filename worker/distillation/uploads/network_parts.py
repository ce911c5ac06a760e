"""Which tensors of a candidate could be the network itself: without doubles, a normalisation before it, and heads that only
training has."""

import re
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any

from worker.distillation.uploads.candidates import Candidate
from worker.distillation.uploads.selection import COUNTER
from worker.distillation.uploads.weights_file.leaves import numel

TRAINING_ONLY = ("aux", "criterion", "loss", "center_loss")
"""What the names of heads and losses begin with that a network has only in training, in lower case."""
MOST_CANDIDATES = 8
MAIN = 0.6
"""Share of the tensors that lie under one name, if that is the network."""


def largest_first(candidates: Sequence[Candidate]) -> list[Candidate]:
    """The candidates with the most tensors."""
    return sorted(candidates, key=lambda each: (each.joined, -len(each.tensors)))[:MOST_CANDIDATES]


def parts_of(candidate: Candidate) -> Iterator[Candidate]:
    """The candidate, and what is left of it without what is no part of a network; each once."""
    once = without_doubles(candidate.tensors)
    core = {
        name: leaf for name, leaf in once.items() if not _is_for_training(name) and not is_normalisation(name, leaf)
    }
    main = _main(core)
    in_order = [{name: one[name] for name in sorted(one, key=natural)} for one in (core, main)]
    seen: list[list[str]] = []
    for tensors in (candidate.tensors, once, core, main, *in_order):
        if tensors and list(tensors) not in seen:
            seen.append(list(tensors))
            yield replace(candidate, tensors=tensors)


def natural(name: str) -> list[tuple[int, str]]:
    """A key that sorts `conv10` behind `conv2`."""
    return [(int(part), "") if part.isdigit() else (-1, part) for part in re.split(r"(\d+)", name)]


def is_normalisation(name: str, leaf: Any) -> bool:
    """Whether a tensor is the mean or the std of a layer that normalises images."""
    return name.rpartition(".")[2] in ("mean", "std") and 0 < numel(leaf) == max(leaf.shape, default=0) <= 64


def weight_shapes(candidate: Candidate) -> list[tuple[int, ...]]:
    """Shapes of its convolutions and linear layers, in order."""
    shapes = (tuple(leaf.shape) for name, leaf in candidate.tensors.items() if not name.endswith(COUNTER))
    return [shape for shape in shapes if len(shape) >= 2]


def _is_for_training(name: str) -> bool:
    return any(part.lower().startswith(TRAINING_ONLY) for part in name.split(".")[:2])


def without_doubles(tensors: dict[str, Any]) -> dict[str, Any]:
    """Each tensor under its first name."""
    once: dict[Any, str] = {}
    for name, leaf in tensors.items():
        once.setdefault(leaf.identity, name)
    return {name: tensors[name] for name in once.values()}


def _main(tensors: dict[str, Any]) -> dict[str, Any]:
    """Those under the first part of the names that most of them share."""
    counts = Counter(name.partition(".")[0] for name in tensors)
    first, count = counts.most_common(1)[0] if counts else ("", 0)
    if count < MAIN * len(tensors):
        return {}
    return {name: leaf for name, leaf in tensors.items() if name.partition(".")[0] == first}
