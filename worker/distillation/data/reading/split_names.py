"""Which folders, files and arrays are a split, by their names."""

import re

WORDS = {
    "train": ("train", "training", "trn"),
    "test": ("test", "testing", "tst", "eval", "evaluation"),
    "val": ("val", "valid", "validation", "validate", "dev"),
}
FILLERS = r"(?:set|seg|data|images?|imgs?|split|pictures?|photos?|folder|[-_ .]|\d)*"
"""What a split's name may contain beside one of the words."""
LONGEST = 64
_NAMES = {split: re.compile(f"{FILLERS}(?:{'|'.join(words)}){FILLERS}") for split, words in WORDS.items()}


def split_of(name: str) -> str | None:
    """`train`, `test` or `val`, if a name says so: `train`, `Training_Set`, `seg_test`, `valid`; else None."""
    if len(name) > LONGEST:
        return None
    return next((split for split, pattern in _NAMES.items() if pattern.fullmatch(name.lower())), None)
