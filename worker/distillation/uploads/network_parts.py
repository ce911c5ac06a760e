"""Which tensors of a candidate could be the network itself: without doubles, a normalisation before it, and heads that only
training has."""

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from typing import Any

from worker.distillation.uploads.candidates import Candidate
from worker.distillation.uploads.selection import COUNTER, common_prefix
from worker.distillation.uploads.weights_file.leaves import numel
from worker.distillation.wording import natural

TRAINING_ONLY = ("aux", "criterion", "loss", "center_loss")
"""What the names of heads and losses begin with that a network has only in training, in lower case."""
NORMALISATION = {
    role: frozenset(f"{before}{word}" for before in ("", "_", "new_", "img_", "image_", "pixel_") for word in words)
    for role, words in (("mean", ("mean", "means", "mu")), ("std", ("std", "stds", "sigma")))
}
"""Last parts of the names of a normalising layer's tensors."""
MOST_CHANNELS = 64
HEADS = ("fc", "classifier", "head", "heads", "linear", "last_linear", "output", "logits")
"""What the paths of classifiers begin with."""
WRAPPERS = ("module", "model", "net", "network", "backbone", "encoder", "_orig_mod")
"""Parts of names that wrappers add."""
MOST_CANDIDATES = 8
LEAST_OF_HALF, MOST_HALVES = 4, 4
"""Tensors that a group needs to be tried as a network of its own, and the number of groups that are tried."""
MAIN = 0.6
"""Share of the tensors that lie under one name, if that is the network."""


def largest_first(candidates: Sequence[Candidate]) -> list[Candidate]:
    """The candidates with the most tensors."""
    return sorted(candidates, key=lambda each: (each.joined, -len(each.tensors)))[:MOST_CANDIDATES]


def parts_of(candidate: Candidate) -> Iterator[Candidate]:
    """The candidate, and what is left of it without what is not part of a network; each once."""
    once = without_doubles(candidate.tensors)
    core = {
        name: leaf
        for name, leaf in once.items()
        if not is_for_training(name) and normalisation_role(name, leaf) is None
    }
    main = _main(core)
    in_order = [{name: one[name] for name in sorted(one, key=key)} for key in (natural, depth) for one in (core, main)]
    seen: list[list[str]] = []
    for tensors in (candidate.tensors, once, core, main, *in_order):
        if tensors and list(tensors) not in seen:
            seen.append(list(tensors))
            yield replace(candidate, tensors=tensors)


def halves(candidate: Candidate) -> Iterator[Candidate]:
    """The groups of tensors under the first parts of their names, such as `student` and `teacher`, the largest first."""
    prefix = common_prefix(candidate.tensors)
    groups: dict[str, dict[str, Any]] = {}
    for name, leaf in candidate.tensors.items():
        first, dot, rest = name.removeprefix(prefix).partition(".")
        if dot:
            groups.setdefault(first, {})[rest] = leaf
    large = [first for first in groups if len(groups[first]) >= LEAST_OF_HALF]
    for first in sorted(large, key=lambda first: -len(groups[first]))[:MOST_HALVES]:
        path = ".".join(part for part in (candidate.path, prefix.rstrip("."), first) if part)
        yield replace(candidate, path=path, tensors=groups[first])


def depth(name: str) -> list[object]:
    """A key that sorts names as they are used: what usually comes first, groups by their numbers, what usually comes last.

    Formats that sort their names, such as safetensors, have `fc` before `layer1`.
    """
    parts = [part for part in name.split(".") if part not in WRAPPERS]
    first = parts[0]
    word, number = first.rstrip("0123456789"), first[len(first.rstrip("0123456789")) :]
    inside = word in ("conv", "bn", "norm")
    rank = (
        3 if word in HEADS else 2 if inside and int(number or 2) > 1 else 0 if inside or word.startswith("pre") else 1
    )
    rest = ".".join(parts[1:])
    return [rank, int(number or 0), word, depth(rest) if word == "features" and rest else natural(rest)]


def normalisation_role(name: str, leaf: Any) -> str | None:
    """`mean` or `std` if a tensor is that of a layer that normalises images, by its name and shape."""
    short = name.rpartition(".")[2].lower()
    role = next((role for role, words in NORMALISATION.items() if short in words), None)
    return role if 0 < numel(leaf) == max(leaf.shape, default=0) <= MOST_CHANNELS else None


def weight_shapes(candidate: Candidate) -> list[tuple[int, ...]]:
    """Shapes of its convolutions and linear layers, in order."""
    shapes = (tuple(leaf.shape) for name, leaf in candidate.tensors.items() if not name.endswith(COUNTER))
    return [shape for shape in shapes if len(shape) >= 2]


def is_for_training(name: str) -> bool:
    """Whether a tensor's name is that of a head or a loss that a network has only in training."""
    return any(part.lower().startswith(TRAINING_ONLY) for part in name.split(".")[:2])


def without_doubles(tensors: dict[str, Any]) -> dict[str, Any]:
    """Each tensor under its first name."""
    once: dict[Any, str] = {}
    for name, leaf in tensors.items():
        once.setdefault(leaf.identity, name)
    return {name: tensors[name] for name in once.values()}


def _main(tensors: dict[str, Any]) -> dict[str, Any]:
    """Those under the first part of the names that most of them share."""
    first = main_name(tensors)
    return {name: leaf for name, leaf in tensors.items() if first and name.partition(".")[0] == first}


def main_name(names: Iterable[str]) -> str:
    """The first part that most names share; empty if there is none."""
    counts = Counter(name.partition(".")[0] for name in names)
    first, count = counts.most_common(1)[0] if counts else ("", 0)
    return first if count >= MAIN * counts.total() else ""
