"""Weights whose layers have other names than the network's: matched layer by layer, in order, by their shapes."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

from torch import nn

from worker.distillation.uploads.candidates import Candidate
from worker.distillation.uploads.key_matching import Matched, expected_of, state_of
from worker.distillation.uploads.network_parts import parts_of
from worker.distillation.uploads.selection import COUNTER, Expected, Fit, chosen, common_prefix
from worker.distillation.uploads.weights_file.leaves import Unreadable
from worker.distillation.wording import natural

Layers = list[tuple[str, dict[str, Any]]]
"""Paths of layers, each with the names and shapes of its tensors by their last part, such as `weight`."""


def match_in_order(candidates: Sequence[Candidate], network: nn.Module, choice: str = "auto") -> Matched | None:
    """The candidate whose layers have the shapes of the network's, one after another; None if there is none.

    A linear layer on a flattened map counts as the convolution over the whole map, which computes the same.
    """
    state = network.state_dict()
    expected = expected_of(network)
    found = [fit for candidate in candidates if (fit := in_order(candidate, expected)) is not None]
    allowed = chosen(found, choice)
    if not allowed:
        return None
    return Matched(state_of(state, allowed[0]), allowed[0], tuple(allowed[1:]))


def in_order(candidate: Candidate, expected: Expected) -> Fit | None:
    """How a candidate's layers go with the network's in order: the file's, or the order of their names."""
    ours = layers_of({name: shape for name, (shape, _) in expected.items()})
    for part in parts_of(candidate):
        theirs = layers_of({name: tuple(leaf.shape) for name, leaf in part.tensors.items()})
        if len(ours) != len(theirs):
            continue
        for order in (theirs, sorted(theirs, key=lambda layer: natural(layer[0]))):
            names = _paired(ours, order)
            if names is not None:
                return _fit(candidate, names, expected)
    return None


def layers_of(shapes: Mapping[str, tuple[int, ...]]) -> Layers:
    """The layers of a state dict in order. Counters and single numbers are no part of a layer."""
    layers: dict[str, dict[str, Any]] = {}
    for name, shape in shapes.items():
        path, _, role = name.rpartition(".")
        if role != COUNTER and shape != ():
            layers.setdefault(path, {})[role] = (name, shape)
    return list(layers.items())


def _paired(ours: Layers, theirs: Layers) -> dict[str, str] | None:
    """The file's names by the network's; None if a layer differs."""
    names: dict[str, str] = {}
    for (_, own), (_, other) in zip(ours, theirs, strict=True):
        if own.keys() != other.keys():
            return None
        for role, (name, shape) in own.items():
            given, given_shape = other[role]
            if not _same(shape, given_shape):
                return None
            names[name] = given
    return names


def _same(shape: tuple[int, ...], given: tuple[int, ...]) -> bool:
    """Whether shapes are equal, or are those of a linear layer and of the convolution over the whole map."""
    flat = {len(shape), len(given)} == {2, 4} and shape[0] == given[0]
    return shape == given or (flat and math.prod(shape[1:]) == math.prod(given[1:]))


def _fit(candidate: Candidate, names: Mapping[str, str], expected: Expected) -> Fit | None:
    taken = {name: candidate.tensors[given] for name, given in names.items()}
    for name, leaf in taken.items():
        whole_numbers = expected[name][1].is_floating_point and not leaf.dtype.is_floating_point
        if type(leaf) is Unreadable or whole_numbers:
            return None
    used = {leaf.identity for leaf in taken.values()}
    left_over = [
        name for name, leaf in candidate.tensors.items() if leaf.identity not in used and not name.endswith(COUNTER)
    ]
    prefix = common_prefix(names.values())
    renamed = {name: given for name, given in names.items() if given.removeprefix(prefix) != name}
    return Fit(candidate, prefix, taken, [], [], [], left_over, renamed=renamed)
