"""Match a file or a state dict with a network, and find other networks that it fits."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from worker.distillation.errors import Problem, UploadError
from worker.distillation.uploads.candidates import Candidate
from worker.distillation.uploads.checked_tensor import checked
from worker.distillation.uploads.selection import CHOICES, Expected, Fit, chosen, fits, further_blocks
from worker.distillation.uploads.weights_file.contents import SAVE_STATE_DICT
from worker.distillation.uploads.weights_file.leaves import Held
from worker.distillation.uploads.weights_file.rebuilding import QUANTISED
from worker.distillation.wording import listed

PREFIXES = ("module.", "model.", "_orig_mod.")
"""Prefixes that DataParallel, training frameworks and `torch.compile` add to all names."""
LISTED_AT_MOST = 8
Alternatives = Callable[[Mapping[str, Any]], Sequence[str]]
"""Returns the names of other networks that a state dict fits."""


@dataclass(frozen=True)
class Matched:
    """A network's state dict from a file, how it was found, and other weights in the file that would fit."""

    state: dict[str, Tensor]
    fit: Fit
    others: tuple[Fit, ...] = ()


def strip_prefixes(state: Mapping[str, Any]) -> dict[str, Any]:
    """The state dict without the usual prefixes that all names share."""
    stripped = dict(state)
    while stripped:
        prefix = next(
            (each for each in PREFIXES if all(name.startswith(each) and name != each for name in stripped)), None
        )
        if prefix is None:
            break
        stripped = {name.removeprefix(prefix): value for name, value in stripped.items()}
    return stripped


def match(
    state: Mapping[str, Tensor],
    network: nn.Module,
    name: str = "the network",
    alternatives: Callable[[], Sequence[str]] = tuple,
) -> dict[str, Tensor]:
    """The state dict with the network's own names, types and layout, as copies.

    A prefix that all names share is removed. Batch counters (`num_batches_tracked`) that old checkpoints lack are set to
    zero. Tensors that the network does not have are ignored. `alternatives` returns other networks that would fit; it is
    called only if this network does not fit.

    Raises:
        UploadError: names or shapes differ; the message lists at most 8 of each kind.
    """
    held = {key: Held(tensor) for key, tensor in state.items()}
    return match_any([Candidate("", {**held})], network, name, lambda _: alternatives()).state


def match_any(
    candidates: Sequence[Candidate], network: nn.Module, name: str, alternatives: Alternatives, choice: str = "auto"
) -> Matched:
    """The candidate that fits the network; `choice` is `auto`, `raw`, `averaged` or a path within the file.

    Raises:
        UploadError: no candidate fits, or the choice excludes all that do; the message lists the differences of the best one.
    """
    state = network.state_dict()
    expected = expected_of(network)
    found = list(fits(candidates, expected))
    whole = [fit for fit in found if fit.is_all] or [fit for fit in found if fit.is_whole]
    allowed = chosen(whole, choice)
    if not whole:
        raise _mismatch(found, name, alternatives)
    if not allowed:
        labels = ", ".join(
            f"`{fit.label[:100] or '(the whole file)'}`" for fit in chosen(whole, "auto")[:LISTED_AT_MOST]
        )
        asked = f"{choice} weights" if choice in CHOICES else f"weights under `{choice[:100]}`"
        raise UploadError(f"the file has no {asked} of {name}, but {labels}", "Set `weights` to one of those.")
    best = allowed[0]
    _refuse_larger(best, name, expected, alternatives)
    return Matched(state_of(state, best), best, tuple(allowed[1:]))


def state_of(state: Mapping[str, Tensor], fit: Fit) -> dict[str, Tensor]:
    """A network's state dict with a fit's numbers, in the network's own names, types and shapes."""
    return {key: _like(key, fit, tensor) for key, tensor in state.items()}


def expected_of(network: nn.Module) -> Expected:
    """The names of a network's state dict, with shapes and types."""
    return {key: (tuple(tensor.shape), tensor.dtype) for key, tensor in network.state_dict().items()}


def _refuse_larger(fit: Fit, name: str, expected: Expected, alternatives: Alternatives) -> None:
    """Refuse weights of a larger network that contains all names of this one."""
    further = further_blocks(fit.left_over, fit.prefix, expected) or fit.without_bias
    if not further:
        return
    fitting = alternatives(_inner(fit))
    hint = f"They fit {' and '.join(fitting)}: set `network` and `classes` accordingly." if fitting else _OWN
    message = f"the weights belong to a larger network than {name}: {_listed('unexpected', further)}"
    raise UploadError(message, hint)


_OWN = (
    "Upload the state dict of the network that `network` names. Or leave `network` out, so that it is searched for by the "
    "weights; describe it by its layers; or upload it as a program (`distillery pack`) or as an ONNX file."
)


def _inner(fit: Fit) -> dict[str, Any]:
    """The candidate's tensors whose names have the fit's prefix, without the prefix."""
    return {
        key.removeprefix(fit.prefix): leaf
        for key, leaf in fit.candidate.tensors.items()
        if key.startswith(fit.prefix) and key != fit.prefix
    }


def _mismatch(found: Sequence[Fit], name: str, alternatives: Alternatives) -> UploadError:
    """An error that lists the differences of the best fit."""
    if not found:
        return UploadError("the file contains no state dict", SAVE_STATE_DICT)
    best = min(found, key=lambda fit: (fit.faults, len(fit.left_over)))
    if best.unreadable:
        leaf = best.taken[best.unreadable[0]]
        reason, hint = getattr(leaf, "reason", ""), getattr(leaf, "hint", SAVE_STATE_DICT)
        return UploadError(f"the tensor `{best.unreadable[0][:100]}` cannot be read: {reason}", hint)
    kinds = {
        "missing": best.missing,
        "unexpected": best.left_over,
        "with another shape": best.shapes,
        "not floating-point": best.types,
    }
    complaints = [_listed(kind, listed) for kind, listed in kinds.items() if listed]
    error = UploadError(f"the weights do not fit {name}: {'; '.join(complaints)}", _hint(best, alternatives))
    error.problems = tuple(Problem("", complaint) for complaint in complaints)
    return error


def _hint(best: Fit, alternatives: Alternatives) -> str:
    if best.types and not best.missing and not best.shapes:
        return f"The weights are integers, probably quantised. {QUANTISED}"
    fitting = alternatives(_inner(best) or best.candidate.tensors)
    return f"They fit {' and '.join(fitting)}: set `network` and `classes` accordingly." if fitting else _OWN


def _listed(kind: str, found: Sequence[str]) -> str:
    return f"{len(found)} {kind} ({listed([each[:120] for each in found], LISTED_AT_MOST)})"


def _like(key: str, fit: Fit, expected: Tensor) -> Tensor:
    leaf = fit.taken.get(key)
    if leaf is None:
        return torch.zeros(expected.shape, dtype=expected.dtype)
    value = checked(key, leaf).reshape(expected.shape).to(dtype=expected.dtype, memory_format=torch.contiguous_format)
    if not bool(torch.isfinite(value).all()):
        raise UploadError(
            f"the tensor `{key}` has values too large for {expected.dtype}",
            "Check the weights, and save them as float32.",
        )
    return value
