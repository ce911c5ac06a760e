"""Findings of an inspection about how weights were read; lists and names are shortened, because the file chooses them."""

from collections import Counter
from collections.abc import Iterable, Sequence
from typing import Any

from worker.distillation.uploads.candidates import Candidate
from worker.distillation.uploads.key_matching import Matched
from worker.distillation.uploads.selection import Fit, is_averaged
from worker.distillation.uploads.state_dicts import OpenFile
from worker.distillation.uploads.weights_file.leaves import Leaf, numel
from worker.distillation.wording import counted

LISTED_AT_MOST = 20
LONGEST = 120


def reading_of(file: OpenFile, matched: Matched) -> dict[str, Any]:
    """How a network's weights were found in a file.

    Returns:
        `container`, `read_from` (a path in the file, empty for the root), `prefix_removed`, `folded`, `left_over` (`count`
        and `names`), `renamed` (the network's names by the file's), `averaged`, `also_fits` (paths of other weights that
        fit), `dtype`, `not_run` (code that the file names), `warnings`.
    """
    fit = matched.fit
    return {
        **_reading(file, fit.candidate, fit.prefix, fit.taken.values(), fit.averaged),
        "folded": _listed([name for name in fit.candidate.folded if name not in fit.left_over]),
        "left_over": {"count": len(fit.left_over), "names": _listed(fit.left_over)},
        "renamed": dict(list(_renamed(fit).items())[:LISTED_AT_MOST]),
        "also_fits": _listed([other.label for other in matched.others]),
        "warnings": _warnings(fit, matched.others),
    }


def reading_of_all(file: OpenFile, candidate: Candidate, prefix: str) -> dict[str, Any]:
    """The same for a file of weights without a network."""
    averaged = candidate.updates is not None or is_averaged(candidate.path)
    found = _reading(file, candidate, prefix, candidate.tensors.values(), averaged)
    return found | {"folded": _listed(candidate.folded)}


def _reading(
    file: OpenFile, candidate: Candidate, prefix: str, taken: Iterable[Leaf], averaged: bool
) -> dict[str, Any]:
    return {
        "container": file.container,
        "read_from": candidate.path,
        "prefix_removed": prefix[:LONGEST],
        "averaged": averaged,
        "dtype": _dtype(taken),
        "not_run": _listed(file.not_run),
    }


def _dtype(leaves: Iterable[Leaf]) -> str:
    """The dtype of most elements."""
    counts: Counter[str] = Counter()
    for leaf in leaves:
        counts[str(leaf.dtype).removeprefix("torch.")] += numel(leaf)
    return counts.most_common(1)[0][0] if counts else "none"


def _warnings(fit: Fit, others: Sequence[Fit]) -> list[str]:
    found = []
    if fit.left_over:
        shown = ", ".join(_listed(fit.left_over[:5]))
        words = "{n} tensor[s] of the file [is|are] not part of the network and [was|were] ignored: {shown}"
        found.append(counted(len(fit.left_over), words, shown=shown))
    if others:
        place = f"`{fit.label[:LONGEST]}`" if fit.label else "the root of the file"
        listed = ", ".join(f"`{label}`" for label in _listed([other.label for other in others])[:5])
        found.append(f"the weights were read from {place}; {listed} would fit too (set `weights` to choose)")
    if fit.candidate.head and fit.candidate.head[0] != fit.candidate.head[1]:
        given, read = (path[:LONGEST] for path in fit.candidate.head)
        found.append(f"the classifier `{given}` was read as `{read}`")
    if fit.candidate.names_of:
        found.append(f"the names of the weights are those of {fit.candidate.names_of}, and were read as the network's")
    if renamed := _renamed(fit):
        words = "{n} tensor[s] [has another name|have other names] than the network's: [it was|they were] matched by the order and shapes"
        found.append(counted(len(renamed), f"{words} of the layers"))
    if fit.candidate.updates == 0:
        found.append("the weights are a running average without any updates")
    return found


def _renamed(fit: Fit) -> dict[str, str]:
    """The network's names by the file's, where they differ."""
    return {given[:LONGEST]: name for name, given in fit.renamed.items()}


def _listed(names: Sequence[str]) -> list[str]:
    return [name[:LONGEST] for name in names[:LISTED_AT_MOST]]
