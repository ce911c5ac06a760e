"""Messages that count things: "1 image has", "2 images have"."""

import re

ALTERNATIVES = re.compile(r"\[([^\[\]|]*)\|([^\[\]|]*)\]|\[(s|es)\]")


def counted(count: int, words: str, **given: object) -> str:
    """`words` with the number for `{n}`: of `[has|have]` the first is taken if it is 1, and `[s]` and `[es]` are left out then.

    Text that users chose, such as names of files, belongs into `given`: it takes the place of `{its name}` as it is.
    """
    chosen = ALTERNATIVES.sub(lambda found: (found[1] or "") if count == 1 else (found[2] or found[3] or ""), words)
    return chosen.format(n=count, **given)
