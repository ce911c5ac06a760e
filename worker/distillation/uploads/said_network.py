"""The network of a teacher: the one that its user names, or the one that its weights fit."""

from collections.abc import Sequence
from dataclasses import replace

from worker.distillation.contract import InputContract
from worker.distillation.errors import UploadError
from worker.distillation.limits import UploadLimits
from worker.distillation.uploads.candidates import Candidate
from worker.distillation.uploads.found_network import FIND, LISTED_AT_MOST, Found, Said, assumed, check_size
from worker.distillation.uploads.heads import of_libraries, other_heads
from worker.distillation.uploads.layered_heads import without_classifier
from worker.distillation.uploads.named_network import named_network
from worker.distillation.uploads.network_parts import halves, largest_first
from worker.distillation.uploads.network_search import (
    Proposal,
    difference,
    different,
    is_rare,
    proposals,
)
from worker.distillation.uploads.other_names.translated import with_translations
from worker.distillation.uploads.own_normalisation import own_normalisation
from worker.distillation.uploads.weights_file.rebuilding import QUANTISED

DESCRIBE = (
    'Name the network and its options; or describe it layer by layer, `"network": {"layers": [{"conv": 16}, ...]}`:'
    " docs/methods.md lists the layers."
)


class NoneFits(UploadError):
    """No known network has the weights of a file."""


def weights_of(said: Said, candidates: Sequence[Candidate], limits: UploadLimits) -> Found:
    """The network and its weights.

    Raises:
        UploadError: the weights are not those of the network that was named, or fit none or several.
        SpecError: the network cannot be built.
    """
    found = _searched(said, candidates, limits) if said.network == FIND else named_network(said, candidates, limits)
    return _with_own_normalisation(found)


def offered_for(said: Said, candidates: Sequence[Candidate]) -> list[Proposal]:
    """The known networks that the weights fit, also those of libraries with another head; or else that parts of them fit."""
    candidates = with_translations(candidates)
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
    warnings = (*assumed(best.network, best.options), *chosen_because)
    kept = tuple(offered[:LISTED_AT_MOST])
    return Found(best.network, best.options, best.classes, said.contract, network, matched, kept, warnings)


def _part(proposal: Proposal) -> str:
    """The path of the tensors that a network is made of, such as that of a student beside its teacher."""
    return proposal.fits[0].candidate.path


def _chosen(distinct: Sequence[Proposal], contract: InputContract) -> tuple[Proposal, tuple[str, ...]]:
    """The usual one of several networks that compute different things.

    Returns:
        The network, and a warning that names the others, if there are others.

    Raises:
        UploadError: several are usual.
    """
    preferred = [each for each in distinct if each.library == distinct[0].library and _part(each) == _part(distinct[0])]
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


def _with_own_normalisation(found: Found) -> Found:
    """The same with the mean and std of a normalising layer that the file has before the network, if it has one."""
    own = own_normalisation(found.matched.fit, found.contract)
    if own is None:
        return found
    words = f"the file normalises images itself: mean {list(own.mean)} and std {list(own.std)} were taken"
    return replace(found, contract=own, warnings=(*found.warnings, words))
