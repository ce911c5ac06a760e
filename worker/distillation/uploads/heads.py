"""Classifiers under other names than the network's: wrapped as `Sequential(Dropout, Linear)`, unwrapped, or beside the network."""

from collections.abc import Iterator, Sequence
from dataclasses import replace

from worker.distillation.networks.library_index import with_names
from worker.distillation.uploads.candidates import Candidate
from worker.distillation.uploads.network_parts import HEADS, largest_first, main_name, parts_of
from worker.distillation.uploads.selection import common_prefix
from worker.distillation.wording import natural

WITHIN = (".0", ".1", ".2", ".3", ".6", ".head", ".fc")
"""Places of a linear layer within a classifier of torchvision and timm, if it is not the classifier itself."""
MOST_CANDIDATES = 3


def other_heads(candidates: Sequence[Candidate]) -> Iterator[Candidate]:
    """The largest candidates with the classifier under other names that networks have for it."""
    for candidate in largest_first(candidates)[:MOST_CANDIDATES]:
        head = last_linear(candidate)
        for target in dict.fromkeys(_targets(candidate, head)) if head else ():
            others = (name for name in candidate.tensors if not _is_below(name, head))
            if target != head and not any(_is_below(name, target) for name in others):
                yield _renamed(candidate, head, target)


def of_libraries(candidate: Candidate) -> bool:
    """Whether a network of torchvision or timm has these names."""
    for part in parts_of(candidate):
        prefix = common_prefix(part.tensors)
        if with_names(name.removeprefix(prefix) for name in part.tensors):
            return True
    return False


def last_linear(candidate: Candidate) -> str:
    """The path of the last linear layer of what is named as a classifier, or else of all; empty if there is none."""
    linear = [
        name.removesuffix(".weight")
        for name, leaf in candidate.tensors.items()
        if name.endswith(".weight") and len(leaf.shape) == 2
    ]
    prefix = common_prefix(candidate.tensors)
    named = [path for path in linear if path.removeprefix(prefix).partition(".")[0] in HEADS]
    return max(named, key=natural) if named else linear[-1] if linear else ""


def _targets(candidate: Candidate, head: str) -> Iterator[str]:
    """Other paths for the classifier: fewer numbers at its end, then places within what is left, then within the network."""
    path = head
    while path.rpartition(".")[2].isdigit() and _is_alone(candidate, head, path.rpartition(".")[0]):
        path = path.rpartition(".")[0]
        yield path
    if _is_alone(candidate, head, path):
        yield from (path + place for place in WITHIN)
    main = main_name(candidate.tensors)
    if main and _is_alone(candidate, head, head) and not _is_below(head, main):
        yield from (f"{main}.{name}{place}" for name in HEADS for place in ("", *WITHIN))


def _is_alone(candidate: Candidate, head: str, path: str) -> bool:
    """Whether nothing but the classifier lies below a path."""
    return bool(path) and all(_is_below(name, head) for name in candidate.tensors if _is_below(name, path))


def _is_below(name: str, path: str) -> bool:
    return name == path or name.startswith(f"{path}.")


def _renamed(candidate: Candidate, head: str, target: str) -> Candidate:
    tensors = {
        target + name.removeprefix(head) if _is_below(name, head) else name: leaf
        for name, leaf in candidate.tensors.items()
    }
    return replace(candidate, tensors=tensors, head=(head, target))
