"""The network of a teacher whose user names it: whose weights they are, and how many classes."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

import torch
from torch import nn

from worker.distillation import networks
from worker.distillation.errors import SpecError, UploadError
from worker.distillation.limits import UploadLimits
from worker.distillation.uploads.candidates import Candidate
from worker.distillation.uploads.found_network import LISTED_AT_MOST, Found, Said, assumed, check_size
from worker.distillation.uploads.heads import other_heads
from worker.distillation.uploads.key_matching import expected_of, match_any
from worker.distillation.uploads.layer_order import match_in_order
from worker.distillation.uploads.layered_heads import has_representation, headed
from worker.distillation.uploads.network_parts import largest_first, parts_of, weight_shapes
from worker.distillation.uploads.network_search import Proposal, different, proposals, with_other_heads
from worker.distillation.uploads.other_names.translated import with_translations
from worker.distillation.uploads.selection import fits


def named_network(said: Said, candidates: Sequence[Candidate], limits: UploadLimits) -> Found:
    """The network that a user names, with the weights that fit it; or another, with a warning, where only that one fits.

    Raises:
        UploadError: the weights do not fit.
        SpecError: the network cannot be built.
    """
    candidates = with_translations(candidates)
    classes = said.classes or _rows_of_classifier(said, candidates) or _rows_of_last(candidates)
    check_size(said.network, said.options, classes, said.contract, limits)
    network = networks.build(said.network, classes, said.contract, said.options)
    by_names = partial(_by_names, said, network=network, classes=classes)
    whole = _is_whole(candidates, network)
    if not whole or has_representation(candidates):
        layered = _with_layered_head(said, candidates)
        if layered is not None:
            return layered
    if whole:
        return by_names(candidates)
    moved = (*other_heads(candidates), *(each.candidate for each in headed(candidates, said.contract)))
    if found := [each for each in moved if _is_whole([each], network)]:
        return by_names([*candidates, *found])
    matched = match_in_order(candidates, network, said.weights)
    if matched is None:
        return _instead(said, different(_fitting(said, candidates), said.contract), limits) or by_names(candidates)
    others = _others(said, candidates, classes)
    named = [each for each in others if not each.renamed and each.network != said.network]
    warnings = [f"the names of the weights are those of {named[0]}, whose layers are the same"] if named else []
    return Found(said.network, said.options, classes, said.contract, network, matched, (), tuple(warnings))


def _is_whole(candidates: Sequence[Candidate], network: nn.Module) -> bool:
    """Whether one of the candidates has all weights of a network by their names."""
    return any(fit.is_all for fit in fits(candidates, expected_of(network)))


def _by_names(said: Said, candidates: Sequence[Candidate], network: nn.Module, classes: int) -> Found:
    """The named network with the weights of its names.

    Raises:
        UploadError: no candidate has them.
    """
    title = f"`{said.network}` with {classes} classes"
    matched = match_any(
        candidates, network, title, lambda _: list(map(str, _others(said, candidates, classes))), said.weights
    )
    return Found(said.network, said.options, classes, said.contract, network, matched)


def _fitting(said: Said, candidates: Sequence[Candidate]) -> list[Proposal]:
    return proposals(candidates, said.contract, None, said.weights)[:LISTED_AT_MOST]


def _others(said: Said, candidates: Sequence[Candidate], classes: int) -> list[Proposal]:
    """The networks that candidates fit, but for the named one; of those that compute the same, one."""
    fitting = _fitting(said, candidates)
    return different(
        [each for each in fitting if (each.network, each.classes) != (said.network, classes)], said.contract
    )


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
    warnings = (words, *assumed(best.network, best.options))
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
            warnings = tuple(assumed(each.network, each.options))
            matched = each.matched(network)
            return Found(each.network, each.options, each.classes, said.contract, network, matched, (), warnings)
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
