"""Words: messages that count things ("1 image has", "2 images have"), lists of names, and the order of names with numbers."""

import re
from collections.abc import Sequence

ALTERNATIVES = re.compile(r"\[([^\[\]|]*)\|([^\[\]|]*)\]|\[(s|es)\]")


def counted(count: int, words: str, **given: object) -> str:
    """`words` with the number for `{n}`: of `[has|have]` the first is taken if it is 1, and `[s]` and `[es]` are left out then.

    Text that users chose, such as names of files, belongs into `given`: it takes the place of `{its name}` as it is.
    """
    chosen = ALTERNATIVES.sub(lambda found: (found[1] or "") if count == 1 else (found[2] or found[3] or ""), words)
    return chosen.format(n=count, **given)


def listed(names: Sequence[str], most: int = 8) -> str:
    """The first `most` names, and how many more there are."""
    return ", ".join(names[:most]) + (f" and {len(names) - most} more" if len(names) > most else "")


def natural(name: str) -> list[tuple[int, str]]:
    """A key that sorts `conv10` behind `conv2`."""
    return [(int(part) if part.isdecimal() else -1, part) for part in re.split(r"(\d+)", name)]
