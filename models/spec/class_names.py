"""Whether a dataset and a teacher name the same classes: the engine's rule (`contract_check/class_names.py`), at submission."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from models.spec.facts import DatasetFacts, Facts
from models.spec.problems import Problem
from models.spec.task_checks import task_of

LISTED = 5
HINT = "name the same classes on both sides, in any order, or leave the teacher's names out, to match classes by number"


def check_class_names(resolved: Mapping[str, Any], facts: Facts) -> Iterator[Problem]:
    """Problems of datasets that share only some class names with the teacher."""
    if facts.teacher is None or not task_of(resolved["task"])["labels_are_outputs"]:
        return
    for pointer, dataset in (("/dataset", facts.dataset), ("/evaluation/dataset", facts.evaluation)):
        own, known = names_of(dataset), facts.teacher.class_names
        if len(own) == len(known) and (differ := partly_shared(own, known)):
            yield Problem(pointer, f"shares only some class names with the teacher: {differ}; {HINT}")


def names_of(dataset: DatasetFacts | None) -> Sequence[str]:
    """All class names of a dataset; none if its findings do not list all."""
    names = ((dataset.findings if dataset else None) or {}).get("class_names") or ()
    return names if dataset and len(names) == dataset.classes else ()


def partly_shared(dataset: Sequence[str], teacher: Sequence[str]) -> str | None:
    """How two sets of names differ that share some of them, in words; None if they are the same, share none, or one side's
    names are only numbers."""
    ours, theirs = _plain(dataset), _plain(teacher)
    if not ours or not theirs or _numbered(ours, theirs):
        return None
    if set(ours) == set(theirs) or set(ours).isdisjoint(theirs):
        return None
    return f"only the dataset has {_listed(ours, theirs)}, and only the teacher {_listed(theirs, ours)}"


def none_shared(dataset: Sequence[str], teacher: Sequence[str]) -> bool:
    """Whether both sides have class names and not one in common; False if a side has no names, or only numbers."""
    ours, theirs = _plain(dataset), _plain(teacher)
    return bool(ours and theirs) and not _numbered(ours, theirs) and set(ours).isdisjoint(theirs)


def _plain(names: Sequence[str]) -> list[str]:
    return [name.strip().casefold() for name in names]


def _numbered(*sides: Sequence[str]) -> bool:
    return any(all(map(str.isdecimal, names)) for names in sides)


def _listed(names: Sequence[str], others: Sequence[str]) -> str:
    only = [f"`{name[:40]}`" for name in names if name not in set(others)]
    more = f" and {len(only) - LISTED} more" if len(only) > LISTED else ""
    return (", ".join(only[:LISTED]) or "nothing") + more
