"""Matching the classes of a dataset and of a teacher by their names."""

from collections.abc import Sequence

from worker.distillation.wording import listed

LISTED = 5


def other_order(dataset: Sequence[str], teacher: Sequence[str]) -> tuple[int, ...] | None:
    """For each class of the dataset the number of the teacher's class with its name, if both sides have the same names in
    different orders; None where classes go by their numbers.

    Upper and lower case and blanks around a name do not count.
    """
    ours, theirs = _plain(dataset), _plain(teacher)
    if ours == theirs or len(set(ours)) != len(ours) or sorted(ours) != sorted(theirs):
        return None
    return tuple(theirs.index(name) for name in ours)


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
    return listed(only, LISTED) or "nothing"
