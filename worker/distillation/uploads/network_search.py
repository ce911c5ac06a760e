"""Finding the network of weights: which networks have these names, or these layers in this order."""

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from worker.distillation import networks
from worker.distillation.contract import InputContract
from worker.distillation.errors import SpecError
from worker.distillation.networks.family import Pattern
from worker.distillation.networks.library_index import with_names
from worker.distillation.uploads.candidates import Candidate
from worker.distillation.uploads.key_matching import Matched, expected_of, state_of
from worker.distillation.uploads.layer_order import in_order
from worker.distillation.uploads.layered_heads import headed
from worker.distillation.uploads.network_parts import largest_first, parts_of, weight_shapes
from worker.distillation.uploads.selection import Expected, Fit, chosen, common_prefix, fits, further_blocks

LIBRARIES = ("", "torchvision", "timm")
"""Whose networks are preferred, the best first."""
MOST_OF_LIBRARIES = 32
DIFFERENCES_LISTED = 2
ROUNDING = 1e-3
"""Outputs that differ by less than this, relative to the largest, are equal."""
MOST_LEFT_OVER = 0.25
"""Largest share of a file's tensors that may be no part of a network that is proposed."""


@dataclass(frozen=True)
class Proposal:
    """A network that a file's weights fit whole, with the fits, the best first."""

    network: str
    options: dict[str, Any]
    classes: int
    fits: tuple[Fit, ...] = field(repr=False)

    @property
    def library(self) -> str:
        """The library that it is from: torchvision, timm, or empty for the catalogue's own networks."""
        return self.network.partition("/")[0] if "/" in self.network else ""

    @property
    def renamed(self) -> bool:
        """Whether the layers fit in their order, under other names."""
        return bool(self.fits[0].renamed)

    def to_json(self) -> dict[str, Any]:
        said = {"network": self.network, "options": self.options, "classes": self.classes}
        return said | {"matched_by": "order of layers" if self.renamed else "names"}

    def build(self, contract: InputContract) -> nn.Module:
        return networks.build(self.network, self.classes, contract, self.options)

    def matched(self, network: nn.Module) -> Matched:
        """The network's state dict from the file."""
        return Matched(state_of(network.state_dict(), self.fits[0]), self.fits[0], self.fits[1:])

    def __str__(self) -> str:
        options = f" the options {json.dumps(self.options)} and" if self.options else ""
        return f"`{self.network}` with{options} {self.classes} classes"


def proposals(
    candidates: Sequence[Candidate], contract: InputContract, classes: int | None = None, choice: str = "auto"
) -> list[Proposal]:
    """The networks that some of the candidates fit: by names, or else by their layers in order; the best first.

    `classes` are all numbers of classes if None.
    """
    tried: dict[str, Proposal | None] = {}
    for candidate in largest_first(candidates):
        for network, options, count in _possible(candidate, classes):
            key = json.dumps([network, options, count], sort_keys=True)
            if key not in tried:
                tried[key] = _fitting(candidates, network, options, count, contract, choice)
    found = [each for each in tried.values() if each is not None]
    if all(each.renamed for each in found):
        found += with_other_heads(candidates, contract, classes, choice)
    named = [each for each in found if not each.renamed]
    best = sorted(named or found, key=_rank)
    return [each for each in best if len(each.fits[0].left_over) == len(best[0].fits[0].left_over)]


def with_other_heads(
    candidates: Sequence[Candidate], contract: InputContract, classes: int | None, choice: str
) -> list[Proposal]:
    """Networks of libraries with a head of several layers, with all other options that their weights allow."""
    found: dict[str, Proposal] = {}
    for each in headed(candidates, contract):
        pattern = _pattern(each.network)
        for options in pattern.guess(each.network.removeprefix(pattern.prefix), weight_shapes(each.candidate)):
            given = options | each.options
            fitting = (
                _fitting([each.candidate], each.network, given, each.classes, contract, choice)
                if classes in (None, each.classes)
                else None
            )
            if fitting is not None:
                found.setdefault(json.dumps([each.network, given], sort_keys=True), fitting)
    return list(found.values())


def _rank(proposal: Proposal) -> tuple[object, ...]:
    library = LIBRARIES.index(proposal.library)
    return (len(proposal.fits[0].left_over), library, len(proposal.options))


def _possible(candidate: Candidate, classes: int | None) -> Iterator[tuple[str, dict[str, Any], int]]:
    """Networks, options and numbers of classes that the shapes of some part of a candidate allow."""
    for part in parts_of(candidate):
        shapes = weight_shapes(part)
        if not shapes:
            continue
        count = classes or shapes[-1][0]
        for name, network in networks.named().items():
            for options in network.guess(shapes):
                yield name, options, count
        prefix = common_prefix(part.tensors)
        for name in with_names(key.removeprefix(prefix) for key in part.tensors)[:MOST_OF_LIBRARIES]:
            pattern = _pattern(name)
            for options in pattern.guess(name.removeprefix(pattern.prefix), shapes):
                yield name, options, count


def _pattern(name: str) -> Pattern:
    return next(pattern for pattern in networks.patterns() if name.startswith(pattern.prefix))


def is_rare(proposal: Proposal, contract: InputContract) -> bool:
    """Whether a network with these weights rarely has the proposal's options."""
    if not proposal.library:
        return False
    pattern = _pattern(proposal.network)
    return pattern.rare(proposal.network.removeprefix(pattern.prefix), proposal.options, contract)


def difference(one: Proposal, other: Proposal, contract: InputContract) -> str:
    """What tells two networks apart: layers with other settings, in words."""
    with torch.device("meta"):
        layers, others = (_layers(each.build(contract)) for each in (one, other))
    changed = [path for path in others if path in layers and others[path] != layers[path]]
    words = [f"`{path}` is {others[path]} instead of {layers[path]}" for path in changed[:DIFFERENCES_LISTED]]
    more = len(changed) - len(words)
    if not changed and one.library:
        words = [f"`{name}` is {value}" for name, value in other.options.items() if one.options.get(name) != value]
        words = words or [
            f"`{name}` is not {value}" for name, value in one.options.items() if name not in other.options
        ]
    return ", ".join(words) + (f", and {more} more layers differ" if more else "")


def _layers(network: nn.Module) -> dict[str, str]:
    return {path: repr(module) for path, module in network.named_modules() if not module._modules}


def _fitting(
    candidates: Sequence[Candidate],
    name: str,
    options: dict[str, Any],
    classes: int,
    contract: InputContract,
    choice: str,
) -> Proposal | None:
    expected = _expected(name, options, classes, contract)
    if expected is None:
        return None
    by_names = [
        fit
        for fit in fits(candidates, expected)
        if fit.is_all and _is_most(fit) and not further_blocks(fit.left_over, fit.prefix, expected)
    ]
    allowed = chosen(by_names, choice)
    if not allowed and "/" not in name:
        largest = largest_first(candidates)
        ordered = [fit for each in largest if (fit := in_order(each, expected)) is not None]
        allowed = chosen([fit for fit in ordered if _is_most(fit)], choice)
    return Proposal(name, options, classes, tuple(allowed)) if allowed else None


def _is_most(fit: Fit) -> bool:
    """Whether few of a file's tensors are left over."""
    return len(fit.left_over) <= MOST_LEFT_OVER * len(fit.candidate.tensors)


def _expected(name: str, options: dict[str, Any], classes: int, contract: InputContract) -> Expected | None:
    """The network's names, shapes and types; None if it cannot be built so."""
    try:
        with torch.device("meta"):
            return expected_of(networks.build(name, classes, contract, options))
    except (SpecError, RuntimeError, ValueError):
        return None


def different(found: Sequence[Proposal], contract: InputContract) -> list[Proposal]:
    """Proposals that compute different things: of those that answer a random image alike, the first."""
    image = torch.randn(
        2, contract.channels, contract.height, contract.width, generator=torch.Generator().manual_seed(0)
    )
    kept: list[tuple[Proposal, Tensor]] = []
    for proposal in found:
        answer = _answer(proposal, contract, image) if len(found) > 1 else image
        if not any(_is_same(proposal, answer, *other, contract) for other in kept):
            kept.append((proposal, answer))
    return [proposal for proposal, _ in kept]


def _answer(proposal: Proposal, contract: InputContract, image: Tensor) -> Tensor:
    network = proposal.build(contract)
    network.load_state_dict(proposal.matched(network).state)
    with torch.no_grad():
        return torch.as_tensor(network.eval()(image))


def _is_same(one: Proposal, answer: Tensor, other: Proposal, answered: Tensor, contract: InputContract) -> bool:
    """Whether two networks compute the same; one with other settings does not, even if its weights hide it."""
    if one.network == other.network and difference(one, other, contract):
        return False
    return _alike(answer, answered)


def _alike(one: Tensor, other: Tensor) -> bool:
    tolerance = ROUNDING * float(one.abs().max())
    return one.shape == other.shape and torch.allclose(one, other, rtol=0, atol=tolerance, equal_nan=True)


def unseen_options(name: str, options: Mapping[str, Any]) -> dict[str, str]:
    """What weights do not show of a network, with the values that were assumed."""
    rows = options.get("head", ()) if "/" in name else ()
    kinds = {kind: row[kind] for row in rows for kind in ("activation", "pool") if kind in row}
    if kinds:
        return {f"{kind} in head": value for kind, value in sorted(kinds.items())}
    network = networks.named().get(name)
    return {option: value for option, value in network.unseen.items() if option not in options} if network else {}
