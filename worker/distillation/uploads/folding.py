"""Computation of weights that a file stores in parts: pruning, weight normalisation, spectral normalisation.

- pruning (torch.nn.utils.prune): w = orig * mask
- weight normalisation (arXiv:1602.07868): w = g v / ||v||, the norm over all dimensions but that of g
- spectral normalisation (arXiv:1802.05957) as evaluation uses it: w = orig / (u . W v), W the weight as a matrix of rows

Other parametrisations are code that a file only names, so their weights cannot be computed from the parts.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from worker.distillation.uploads.weights_file.leaves import Computed, Leaf, Unreadable, numel

COUNTERS = frozenset({"total_ops", "total_params", "n_averaged"})
"""Last parts of names that tools add to state dicts (thop's counters, torch's AveragedModel) and no network needs."""
REMOVE = (
    "Save the weight itself: `torch.nn.utils.parametrize.remove_parametrizations(module, name)` for each such module, then "
    "`torch.save(network.state_dict(), path)`."
)
_INNER = ".parametrizations."


@dataclass(frozen=True)
class Folded:
    """The tensors, with computed weights instead of their parts, and the names of these weights."""

    tensors: dict[str, Leaf]
    names: list[str]


def fold(tensors: Mapping[str, Leaf]) -> Folded:
    """Compute all weights whose parts are known; other tensors do not change.

    A parametrised weight that cannot be computed becomes `Unreadable`, which raises if it is read.
    """
    grouped = _grouped(tensors)
    instead: dict[str, tuple[str, Leaf]] = {}
    gone: set[str] = set()
    for name in tensors:
        suffix = next((each for each in _RULES if name.endswith(each)), None)
        if suffix is None or name in gone:
            continue
        stem = name.removesuffix(suffix)
        made = _RULES[suffix](stem, tensors, grouped.get(stem, []))
        if made is not None and made[0] not in tensors:
            instead[name] = made[:2]
            gone.update(part for part in made[2] if part != name)
    kept = dict(instead.get(name, (name, leaf)) for name, leaf in tensors.items() if name not in gone)
    return Folded(kept, [target for target, _ in instead.values()])


def _grouped(tensors: Iterable[str]) -> dict[str, list[str]]:
    """The names below each `M.parametrizations.X`."""
    groups: dict[str, list[str]] = {}
    for name in tensors:
        before, mark, rest = f".{name}".rpartition(_INNER)
        if mark:
            stem = f"{before}{mark}{rest.partition('.')[0]}".removeprefix(".")
            groups.setdefault(stem, []).append(name)
    return groups


Made = tuple[str, Leaf, Iterable[str]]
"""A weight's name, the weight, and the names of its parts."""


def _pruned_or_spectral(stem: str, given: Mapping[str, Leaf], parts: Sequence[str]) -> Made | None:
    """`X_orig` with `X_mask`, or with `X_u` and `X_v`."""
    original = given[f"{stem}_orig"]
    if f"{stem}_mask" in given:
        return _masked(stem, original, given[f"{stem}_mask"], (f"{stem}_orig", f"{stem}_mask"))
    if f"{stem}_u" in given:
        u, v = given[f"{stem}_u"], given.get(f"{stem}_v")
        return _spectral(stem, original, u, v, (f"{stem}_orig", f"{stem}_u", f"{stem}_v"))
    return None


def _normed(stem: str, given: Mapping[str, Leaf], parts: Sequence[str]) -> Made | None:
    """`X_g` with `X_v`."""
    g, v = given[f"{stem}_g"], given.get(f"{stem}_v")
    return None if v is None else _by_norm(stem, g, v, (f"{stem}_g", f"{stem}_v"))


def _parametrised(stem: str, given: Mapping[str, Leaf], parts: Sequence[str]) -> Made | None:
    """`M.parametrizations.X.original` with the state of its one parametrisation."""
    name = _target(stem)
    original = given[f"{stem}.original"]
    held = {part.removeprefix(f"{stem}.") for part in parts} - {"original"}
    if name is None:
        return None
    if held == {"0._u", "0._v"}:
        return _spectral(name, original, given[f"{stem}.0._u"], given[f"{stem}.0._v"], parts)
    if held == {"0.mask"}:
        return _masked(name, original, given[f"{stem}.0.mask"], parts)
    return name, _unknown(name, original), parts


def _parametrised_norm(stem: str, given: Mapping[str, Leaf], parts: Sequence[str]) -> Made | None:
    """`M.parametrizations.X.original0` (g) and `original1` (v)."""
    name = _target(stem)
    g = given[f"{stem}.original0"]
    v = given.get(f"{stem}.original1")
    if name is None or v is None:
        return None
    return _by_norm(name, g, v, parts) if len(parts) == 2 else (name, _unknown(name, v), parts)


def _target(stem: str) -> str | None:
    """`conv.weight` of `conv.parametrizations.weight`."""
    before, mark, name = f".{stem}".rpartition(_INNER)
    return f"{before}.{name}".removeprefix(".") if mark else None


def _unknown(name: str, part: Leaf) -> Leaf:
    message = (
        f"the weight `{name[:100]}` is parametrised by code that the file does not contain, so it cannot be computed"
    )
    return Unreadable(message, REMOVE, part.shape, part.dtype)


def _masked(name: str, original: Leaf, mask: Leaf, parts: Iterable[str]) -> Made | None:
    if original.shape != mask.shape:
        return None
    return name, Computed(original.shape, original.dtype, (original, mask), weight_of_mask), parts


def _by_norm(name: str, g: Leaf, v: Leaf, parts: Iterable[str]) -> Made | None:
    fits = numel(g) == 1 or (
        len(g.shape) == len(v.shape) and all(one in (1, other) for one, other in zip(g.shape, v.shape, strict=True))
    )
    return (name, Computed(v.shape, v.dtype, (g, v), weight_of_norm), parts) if fits else None


def _spectral(name: str, original: Leaf, u: Leaf, v: Leaf | None, parts: Iterable[str]) -> Made | None:
    shape = original.shape
    rows_fit = len(shape) > 1 and u.shape == shape[:1] and v is not None and numel(v) * shape[0] == numel(original)
    if not rows_fit or v is None:
        message = f"the weight `{name[:100]}` has a spectral norm along another dimension than the first, which is not supported"
        return name, Unreadable(message, REMOVE, shape, original.dtype), parts
    return name, Computed(shape, original.dtype, (original, u, v), weight_of_spectrum), parts


def weight_of_mask(original: Tensor, mask: Tensor) -> Tensor:
    """orig * mask."""
    return _precise(original) * _precise(mask)


def weight_of_norm(g: Tensor, v: Tensor) -> Tensor:
    """g v / ||v||; the norm is over the dimensions in which g has length 1, or over all if g has one element."""
    g, v = _precise(g), _precise(v)
    if g.numel() == 1:
        return v * (g.reshape(()) / v.square().sum().sqrt())
    others = tuple(index for index, length in enumerate(g.shape) if length == 1)
    return v * (g / v.square().sum(others, keepdim=True).sqrt())


def weight_of_spectrum(original: Tensor, u: Tensor, v: Tensor) -> Tensor:
    """W / (u . W v), with W as a matrix (rows, all other dimensions)."""
    original = _precise(original)
    return original / torch.dot(_precise(u), original.flatten(1) @ _precise(v))


def _precise(tensor: Tensor) -> Tensor:
    return tensor if tensor.dtype == torch.float64 else tensor.float()


_RULES: dict[str, Callable[[str, Mapping[str, Leaf], Sequence[str]], Made | None]] = {
    "_orig": _pruned_or_spectral,
    "_g": _normed,
    ".original": _parametrised,
    ".original0": _parametrised_norm,
}
