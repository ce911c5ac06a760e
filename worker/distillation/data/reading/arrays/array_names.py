"""What an array of an npz file is, by its name: images or labels, of which split."""

import re
from collections.abc import Iterable
from pathlib import PurePosixPath

from worker.distillation.data.reading.split_names import WORDS, split_of

IMAGES = ("x", "images", "image", "data", "imgs", "img", "pixels", "inputs", "features")
LABELS = ("y", "labels", "label", "targets", "target", "classes", "class", "lbls", "lbl", "gt")
CLASS_NAMES = ("class_names", "classnames", "label_names", "category_names", "categories", "names", "list_classes")
SHORT = {"tr": "train", "te": "test"}
"""Splits in the names of arrays, such as `xtr`; a folder of such a name may be a class."""
_SPLIT = "|".join(sorted((*SHORT, *(word for words in WORDS.values() for word in words)), key=len, reverse=True))
_FIELD = "|".join(sorted((*IMAGES, *LABELS), key=len, reverse=True))
_NAME = re.compile(
    rf"(?:(?P<before>{_SPLIT})(?:[_.\- ]?set)?[_.\- ]?)?(?P<field>{_FIELD})(?:[_.\- ]?(?P<after>{_SPLIT})(?:[_.\- ]?set)?)?"
)
_LONGEST = 40
Found = dict[str, dict[str, str]]


def roles(files: Iterable[PurePosixPath]) -> tuple[dict[str, PurePosixPath], Found]:
    """The arrays by name, and by split the names of its `images` and `labels`; a folder may name the split.

    Of several arrays with the same meaning, the first in the order of the lists of words counts.
    """
    arrays = {_name_of(file): file for file in sorted(files, reverse=True)}
    found: Found = {}
    best: dict[tuple[str, str], int] = {}
    for name in sorted(arrays):
        role = _role(name, arrays[name])
        if role is None:
            continue
        split, kind, rank = role
        if rank < best.get((split, kind), len(_FIELD)):
            best[split, kind] = rank
            found.setdefault(split, {})[kind] = name
    positional = [f"arr_{number}" for number in range(len(arrays))]
    if not found and sorted(arrays) == positional and len(arrays) <= 2:
        found["train"] = dict(zip(("images", "labels"), positional, strict=False))
    return arrays, found


def _name_of(file: PurePosixPath) -> str:
    folder = next((part for part in reversed(file.parts[:-1]) if split_of(part)), None)
    return f"{folder}/{file.stem}" if folder else file.stem


def _role(name: str, file: PurePosixPath) -> tuple[str, str, int] | None:
    """Split, kind and rank among the names of that kind."""
    matched = _NAME.fullmatch(file.stem.lower()) if len(file.stem) <= _LONGEST else None
    if matched is None or (matched["before"] and matched["after"]):
        return None
    said = matched["before"] or matched["after"] or name.rpartition("/")[0]
    field, split = matched["field"], SHORT.get(said) or split_of(said) if said else "train"
    words, kind = (IMAGES, "images") if field in IMAGES else (LABELS, "labels")
    return (split, kind, words.index(field)) if split else None
