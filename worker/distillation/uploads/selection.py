"""Selection of the candidate, and of the prefix, whose names and shapes fit a network."""

import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

import torch

from worker.distillation.uploads.candidates import Candidate
from worker.distillation.uploads.weights_file.leaves import Leaf, Unreadable

COUNTER = "num_batches_tracked"
"""Batch counters of BatchNorm, which old checkpoints lack."""
MOST_TRIED = 200
MOST_PREFIXES = 64
ANCHORS = 5
CHOICES = ("auto", "raw", "averaged")
_AVERAGED = re.compile(r"(^|[._])(ema|swa|averaged?|avg|shadow)($|[._])")
Expected = Mapping[str, tuple[tuple[int, ...], torch.dtype]]
"""Shapes and dtypes of a network's state dict by name."""


@dataclass(frozen=True)
class Fit:
    """How a candidate fits a network after removing `prefix` from its names. `taken` are the tensors by the network's names;
    the lists contain names with problems, and `left_over` names that the network does not have."""

    candidate: Candidate
    prefix: str
    taken: dict[str, Leaf]
    missing: list[str]
    shapes: list[str]
    types: list[str]
    left_over: list[str]
    unreadable: list[str] = field(default_factory=list)
    renamed: dict[str, str] = field(default_factory=dict)
    """The file's names by the network's, where the layers were matched by their order."""

    @property
    def is_whole(self) -> bool:
        """Whether nothing is missing or wrong."""
        return not (self.missing or self.shapes or self.types or self.unreadable)

    @property
    def is_all(self) -> bool:
        """Whether nothing is missing or wrong, and no layer lacks its bias."""
        return self.is_whole and not self.without_bias

    @property
    def faults(self) -> int:
        return len(self.missing) + len(self.shapes) + len(self.types) + len(self.unreadable)

    @property
    def without_bias(self) -> list[str]:
        """Left-over biases of layers of which the network has the weight: it computes something else without them."""
        taken = {leaf.identity for leaf in self.taken.values()}
        given = self.candidate.tensors
        layers = {
            name: given.get(f"{name.removesuffix('.bias')}.weight") for name in self.left_over if name.endswith(".bias")
        }
        return [name for name, weight in layers.items() if weight is not None and weight.identity in taken]

    @property
    def label(self) -> str:
        """The place of the weights: the path in the file and the prefix of their names."""
        return ".".join(part for part in (self.candidate.path, self.prefix.rstrip(".")) if part)

    @property
    def averaged(self) -> bool:
        """Whether the weights are a running average, recognised by names."""
        return self.candidate.updates is not None or is_averaged(self.label)

    @property
    def identity(self) -> tuple[object, ...]:
        """Equal for the same tensors found under two paths."""
        return tuple(leaf.identity for leaf in self.taken.values())


def is_averaged(label: str) -> bool:
    """Whether a path names a running average, such as `state_dict_ema` or `model_ema.module`."""
    return bool(_AVERAGED.search(label.lower()))


def fits(candidates: Sequence[Candidate], expected: Expected) -> Iterator[Fit]:
    """How each candidate fits the network, for every prefix of the network's names in the candidate."""
    own = common_prefix(expected)
    shorter = {name.removeprefix(own): name for name in expected} if own else {}
    by_size = sorted(candidates, key=lambda each: -min(len(each.tensors), len(expected)))
    tried = {id(each) for each in by_size[:MOST_TRIED]}
    for candidate in (each for each in candidates if id(each) in tried):
        for prefix in _prefixes(candidate.tensors, expected) or [""]:
            yield _fit(candidate, prefix, {name: name for name in expected}, expected)
        for prefix in _prefixes(candidate.tensors, shorter):
            yield _fit(candidate, prefix, shorter, expected)


def common_prefix(names: Iterable[str]) -> str:
    """The prefix that all names share, up to and including a dot."""
    listed = list(names)
    first, last = (min(listed), max(listed)) if listed else ("", "")
    length = next((i for i, (a, b) in enumerate(zip(first, last, strict=False)) if a != b), min(len(first), len(last)))
    shared = first[:length].rpartition(".")
    return shared[0] + shared[1]


def _prefixes(names: Iterable[str], expected: Iterable[str]) -> list[str]:
    """Prefixes of a few of the expected names, the most common first."""
    listed = [name for name in expected if not name.endswith(COUNTER)]
    step = max(1, len(listed) // ANCHORS)
    anchors = {*listed[::step][:ANCHORS], *listed[-1:]}
    counts: Counter[str] = Counter()
    for name in names:
        for anchor in anchors:
            if name == anchor or name.endswith(f".{anchor}"):
                counts[name.removesuffix(anchor)] += 1
    return [prefix for prefix, _ in counts.most_common(MOST_PREFIXES)]


def _fit(candidate: Candidate, prefix: str, names: Mapping[str, str], expected: Expected) -> Fit:
    given = candidate.tensors
    taken = {full: given[prefix + short] for short, full in names.items() if prefix + short in given}
    fit = Fit(candidate, prefix, taken, [], [], [], [])
    fit.missing.extend(name for name in expected if name not in taken and not name.endswith(COUNTER))
    for name, leaf in taken.items():
        shape, dtype = expected[name]
        if type(leaf) is Unreadable:
            fit.unreadable.append(name)
        elif tuple(leaf.shape) != shape:
            fit.shapes.append(f"{name} is {tuple(leaf.shape)} instead of {shape}")
        elif dtype.is_floating_point and not leaf.dtype.is_floating_point and not leaf.dtype.is_complex:
            fit.types.append(f"{name} is {leaf.dtype}")
    fit.left_over.extend(
        name for name in given if name.removeprefix(prefix) not in names or not name.startswith(prefix)
    )
    return fit


def chosen(found: Sequence[Fit], choice: str) -> list[Fit]:
    """The complete fits that a choice allows, the best first, each set of tensors once. Averaged weights come before raw ones
    unless the average has no updates, then fits with fewer tensors left over, then the order in the file."""
    once: dict[tuple[object, ...], Fit] = {}
    for fit in found:
        once.setdefault(fit.identity, fit)
    allowed = [fit for fit in once.values() if allows(choice, fit.label, fit.candidate.path, fit.averaged)]
    return sorted(allowed, key=lambda fit: (not (fit.averaged and fit.candidate.updates != 0), len(fit.left_over)))


def allows(choice: str, label: str, path: str, averaged: bool) -> bool:
    """Whether a choice (`auto`, `raw`, `averaged`, or a path within the file) allows weights."""
    if choice in CHOICES:
        return choice == "auto" or averaged == (choice == "averaged")
    return choice in (label, path) or label.startswith(f"{choice}.")


def further_blocks(left_over: Iterable[str], prefix: str, expected: Iterable[str]) -> list[str]:
    """Left-over tensors of numbered blocks of which the network has some: the file's network has more of these blocks."""
    blocks = {place for name in expected for place, _ in _numbered(name)}
    return [
        name
        for name in left_over
        if name.startswith(prefix) and any(place in blocks for place, _ in _numbered(name.removeprefix(prefix)))
    ]


def _numbered(name: str) -> Iterator[tuple[str, str]]:
    """Each number among the parts of a name, with the parts before it."""
    parts = name.split(".")
    for index, part in enumerate(parts[:-1]):
        if part.isdigit():
            yield ".".join(parts[:index]), part
