"""The network of a teacher: the one that its user names, or the one that its weights fit."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import nn

from worker.distillation import networks
from worker.distillation.contract import InputContract, read_contract
from worker.distillation.errors import Problem, SpecError, UploadError
from worker.distillation.limits import UploadLimits
from worker.distillation.uploads.candidates import Candidate
from worker.distillation.uploads.heads import of_libraries, other_heads
from worker.distillation.uploads.key_matching import Matched, expected_of, match_any
from worker.distillation.uploads.layer_order import match_in_order
from worker.distillation.uploads.layered_heads import headed, without_classifier
from worker.distillation.uploads.network_parts import halves, largest_first, parts_of, weight_shapes
from worker.distillation.uploads.network_search import (
    Proposal,
    difference,
    different,
    is_rare,
    proposals,
    unseen_options,
    with_other_heads,
)
from worker.distillation.uploads.own_normalisation import own_normalisation
from worker.distillation.uploads.selection import fits
from worker.distillation.uploads.weights_file.rebuilding import QUANTISED

FIND = "auto"
"""The name of a network that is to be found."""
LISTED_AT_MOST = 8
BYTES_A_PARAMETER = 4
DESCRIBE = (
    'Name the network and its options; or describe it layer by layer, `"network": {"layers": [{"conv": 16}, ...]}`:'
    " docs/methods.md lists the layers."
)


class NoneFits(UploadError):
    """No known network has the weights of a file."""


@dataclass(frozen=True)
class Said:
    """What a user says of a teacher. `network` is `auto` and `classes` None where that is to be found."""

    network: str
    options: dict[str, Any]
    classes: int | None
    class_names: list[str]
    contract: InputContract
    weights: str

    @classmethod
    def of(cls, said: Mapping[str, Any]) -> "Said":
        """Read it from a job file.

        Raises:
            SpecError: it cannot be.
        """
        names = list(said.get("class_names") or [])
        classes = int(said.get("classes") or 0) or len(names) or None
        if names and len(names) != classes:
            raise SpecError([Problem("/class_names", f"must name each of {classes} classes, not {len(names)}")])
        network, options = said.get("network") or FIND, dict(said.get("options") or {})
        contract = read_contract(said["input"])
        return cls(network, options, classes, names, contract, str(said.get("weights") or "auto"))


@dataclass(frozen=True)
class Found:
    """The network that a file's weights are loaded into."""

    name: str
    options: dict[str, Any]
    classes: int
    contract: InputContract
    network: nn.Module
    matched: Matched
    proposals: tuple[Proposal, ...] = ()
    warnings: tuple[str, ...] = ()


def weights_of(said: Said, candidates: Sequence[Candidate], limits: UploadLimits) -> Found:
    """The network and its weights.

    Raises:
        UploadError: the weights are not those of the network that was named, or fit none or several.
        SpecError: the network cannot be built.
    """
    found = _searched(said, candidates, limits) if said.network == FIND else _named(said, candidates, limits)
    return _with_own_normalisation(found)


def offered_for(said: Said, candidates: Sequence[Candidate]) -> list[Proposal]:
    """The known networks that the weights fit, also those of libraries with another head; or else that parts of them fit."""
    parts = [part for each in largest_first(candidates) for part in halves(each)]
    for found in (candidates, parts):
        known = [each for each in other_heads(found) if of_libraries(each)]
        offered = proposals([*found, *known], said.contract, said.classes, said.weights)
        if offered:
            return offered
    return []


def _searched(said: Said, candidates: Sequence[Candidate], limits: UploadLimits) -> Found:
    offered = offered_for(said, candidates)
    if not offered and all(_is_whole(each) for each in candidates):
        words = "the weights are whole numbers, as quantised ones are, and no known network has such"
        raise UploadError(words, QUANTISED)
    if not offered:
        raise NoneFits(_none_fits(candidates, said), DESCRIBE)
    for each in offered:
        check_size(each.network, each.options, each.classes, said.contract, limits)
    best, chosen_because = _chosen(different(offered[:LISTED_AT_MOST], said.contract), said.contract)
    network = best.build(said.contract)
    matched = best.matched(network)
    warnings = (*_assumed(best.network, best.options), *chosen_because)
    kept = tuple(offered[:LISTED_AT_MOST])
    return Found(best.network, best.options, best.classes, said.contract, network, matched, kept, warnings)


def _chosen(distinct: Sequence[Proposal], contract: InputContract) -> tuple[Proposal, tuple[str, ...]]:
    """The usual one of several networks that compute different things.

    Returns:
        The network, and a warning that names the others, if there are others.

    Raises:
        UploadError: several are usual.
    """
    preferred = [each for each in distinct if each.library == distinct[0].library]
    usual = [each for each in preferred if not is_rare(each, contract)] or preferred
    best, *others = [*usual, *(each for each in distinct if each not in usual)]
    told = [
        f"{each}{f', where {words}' if (words := difference(best, each, contract)) else ''}"
        for each in others
        if each.network == best.network
    ]
    named = [str(each) for each in others if each.network != best.network]
    if len(usual) > 1:
        raise UploadError(
            f"the weights fit several networks that compute different things: {'; '.join([str(best), *told, *named])}",
            "Say which it is as `network` and `options`, or name a labelled `dataset` by which it is chosen.",
        )
    if not others:
        return best, ()
    listed = "; ".join([*told, *named])
    return best, (f"{best} was taken; these have the same weights and compute other things: {listed}",)


def _assumed(name: str, options: Mapping[str, Any]) -> list[str]:
    unseen = unseen_options(name, options)
    if not unseen:
        return []
    listed = " and ".join(f"`{option}` = `{value}`" for option, value in unseen.items())
    return [f"the weights do not show {listed} of `{name}`, which were assumed; name the network if they differ"]


def _is_whole(candidate: Candidate) -> bool:
    return not any(leaf.dtype.is_floating_point for leaf in candidate.tensors.values())


def _none_fits(candidates: Sequence[Candidate], said: Said) -> str:
    classes = f" with {said.classes} classes" if said.classes else ""
    largest = max(candidates, key=lambda each: len(each.tensors))
    shapes = ", ".join(
        f"{name[:60]} {tuple(leaf.shape)}" for name, leaf in list(largest.tensors.items())[:LISTED_AT_MOST]
    )
    size = f"{said.contract.channels}x{said.contract.height}x{said.contract.width}"
    if bare := without_classifier(largest):
        return f"the weights are those of `{bare}` without its classifier, and a teacher needs one that was trained"
    return f"no known network{classes} for images of {size} has these weights: {shapes}"


def _named(said: Said, candidates: Sequence[Candidate], limits: UploadLimits) -> Found:
    classes = said.classes or _rows_of_classifier(said, candidates) or _rows_of_last(candidates)
    check_size(said.network, said.options, classes, said.contract, limits)
    network = networks.build(said.network, classes, said.contract, said.options)
    title = f"`{said.network}` with {classes} classes"

    def fitting() -> list[Proposal]:
        return proposals(candidates, said.contract, None, said.weights)[:LISTED_AT_MOST]

    def others() -> list[Proposal]:
        named = (each for each in fitting() if (each.network, each.classes) != (said.network, classes))
        return different(list(named), said.contract)

    matched, warnings = None, []
    expected = expected_of(network)
    if not any(fit.is_whole for fit in fits(candidates, expected)):
        if (layered := _with_layered_head(said, candidates)) is not None:
            return layered
        moved = (*other_heads(candidates), *(each.candidate for each in headed(candidates, said.contract)))
        whole = [each for each in moved if any(fit.is_whole for fit in fits([each], expected))]
        candidates = [*candidates, *whole]
        matched = None if whole else match_in_order(candidates, network, said.weights)
        if (
            not whole
            and matched is None
            and (instead := _instead(said, different(fitting(), said.contract), limits)) is not None
        ):
            return instead
    if matched is None:
        matched = match_any(candidates, network, title, lambda _: list(map(str, others())), said.weights)
    else:
        named = [each for each in others() if not each.renamed and each.network != said.network]
        warnings += [f"the names of the weights are those of {named[0]}, whose layers are the same"] if named else []
    return Found(said.network, said.options, classes, said.contract, network, matched, (), tuple(warnings))


def _instead(said: Said, fitting: Sequence[Proposal], limits: UploadLimits) -> Found | None:
    """The only known network that the weights fit, where they do not fit the named one; None if there is none, or several are.

    Options that weights do not show are kept as the user says.
    """
    if len(fitting) != 1 or said.classes not in (None, fitting[0].classes):
        return None
    fitted = fitting[0]
    unseen = networks.named()[fitted.network].unseen if fitted.network in networks.named() else {}
    best = replace(
        fitted, options=fitted.options | {name: value for name, value in said.options.items() if name in unseen}
    )
    check_size(best.network, best.options, best.classes, said.contract, limits)
    network = best.build(said.contract)
    words = f"the weights are not those of `{said.network}`{_with(said.options)}: they fit {best}, which was taken"
    warnings = (words, *_assumed(best.network, best.options))
    return Found(best.network, best.options, best.classes, said.contract, network, best.matched(network), (), warnings)


def _with(options: Mapping[str, Any]) -> str:
    return f" with {json.dumps(dict(options))}" if options else ""


def _with_layered_head(said: Said, candidates: Sequence[Candidate]) -> Found | None:
    """The named network of a library with the head of several layers that the file has; None if it fits no such network."""
    if "/" not in said.network or "head" in said.options:
        return None
    for each in with_other_heads(candidates, said.contract, said.classes, said.weights):
        own = {name: value for name, value in each.options.items() if name not in ("head", "head_at")}
        if each.network == said.network and own == said.options:
            network = each.build(said.contract)
            assumed = tuple(_assumed(each.network, each.options))
            matched = each.matched(network)
            return Found(each.network, each.options, each.classes, said.contract, network, matched, (), assumed)
    return None


def _rows_of_classifier(said: Said, candidates: Sequence[Candidate]) -> int | None:
    """The rows of the file's tensor that has the name of the network's classifier; None if it has none, or if the options alone
    allow one number of classes."""
    try:
        with torch.device("meta"):
            few, more = (
                networks.build(said.network, count, said.contract, said.options).state_dict() for count in (2, 3)
            )
    except SpecError:
        return None
    names = [name for name, tensor in few.items() if tensor.shape != more[name].shape]
    for candidate in largest_first(candidates):
        for name, leaf in candidate.tensors.items():
            if leaf.shape and any(name == each or name.endswith(f".{each}") for each in names):
                return int(leaf.shape[0])
    return None


def _rows_of_last(candidates: Sequence[Candidate]) -> int:
    """The rows of the last weight in the largest candidate, which are the classes."""
    lasts = [weight_shapes(part)[-1:] for part in parts_of(largest_first(candidates)[0])]
    rows = [shapes[0][0] for shapes in lasts if shapes and shapes[0][0]]
    if not rows:
        words = "the file holds no convolution and no linear layer, and the number of classes is not given"
        raise UploadError(words, "Upload the state dict of a network, or give `classes`.")
    return rows[-1]


def _with_own_normalisation(found: Found) -> Found:
    """The same with the mean and std of a normalising layer that the file has before the network, if it has one."""
    own = own_normalisation(found.matched.fit, found.contract)
    if own is None:
        return found
    words = f"the file normalises images itself: mean {list(own.mean)} and std {list(own.std)} were taken"
    return replace(found, contract=own, warnings=(*found.warnings, words))


def check_size(
    name: str, options: Mapping[str, Any], classes: int, contract: InputContract, limits: UploadLimits
) -> None:
    """Check that a network has no more parameters than are allowed, without making their numbers.

    Raises:
        SpecError: it has, or it cannot be built.
        UploadError: an upload of this size cannot hold them.
    """
    with torch.device("meta"):
        parameters = parameters_of(networks.build(name, classes, contract, dict(options)))
    if parameters > limits.parameters:
        raise SpecError(
            [Problem("/network", f"{name} has {parameters} parameters; the maximum is {limits.parameters}")]
        )
    limits.check_canonical(BYTES_A_PARAMETER * parameters)  # a small file cannot hold the weights of a large network


def parameters_of(network: nn.Module) -> int:
    """Number of parameters."""
    return sum(parameter.numel() for parameter in network.parameters())
