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


_TOKENS = re.compile(r"[a-z]+")


def loose_split_of(name: str) -> tuple[str, str] | None:
    """The split that a word within a longer name says, and the rest of the name: `train_resized` is (`train`, `resized`); None if no
    word, or several, are those of splits. A folder of such a name may as well be a class."""
    if len(name) > LONGEST:
        return None
    words = _TOKENS.findall(name.lower())
    found = [(split, word) for word in words if (split := split_of(word))]
    if len(found) != 1:
        return None
    split, said = found[0]
    return split, " ".join(word for word in words if word != said)
