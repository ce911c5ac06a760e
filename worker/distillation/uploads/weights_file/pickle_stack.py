"""The state of the pickle machine, and its exception."""

from collections.abc import Callable
from typing import Any

from worker.distillation.uploads.weights_file.inert import OtherKey

MOST_INTEGER_KEYS = 2**16
"""Integers from here on are wrapped as keys: Python's hash of an integer is the integer, so a file could choose many that
collide."""
MOST_MEMO = 2**32

Maker = Callable[[Any, tuple[Any, ...]], Any]
Fetcher = Callable[[Any], Any]


class Malformed(ValueError):
    """The bytes are not a pickle that the machine supports."""


class PickleStack:
    """Stack, marks and memo. `made(of, args)` returns the replacement of a call, `fetched(id)` that of a persistent id."""

    def __init__(self, made: Maker, fetched: Fetcher):
        self.made = made
        self.fetched = fetched
        self.stack: list[Any] = []
        self.marks: list[int] = []
        self.memo: dict[int, Any] = {}

    def pop(self) -> Any:
        """Remove and return the top of the stack, which must be above the last mark."""
        if len(self.stack) <= (self.marks[-1] if self.marks else 0):
            raise Malformed("the stack is empty")
        return self.stack.pop()

    def since_mark(self) -> list[Any]:
        """Remove and return everything above the last mark; the mark is removed too."""
        if not self.marks:
            raise Malformed("there is no mark")
        start = self.marks.pop()
        taken = self.stack[start:]
        del self.stack[start:]
        return taken

    def top(self) -> Any:
        """The top of the stack, without removing it."""
        if len(self.stack) <= (self.marks[-1] if self.marks else 0):
            raise Malformed("the stack is empty")
        return self.stack[-1]

    def remember(self, index: int) -> None:
        """Store the top of the stack in the memo."""
        if not 0 <= index < MOST_MEMO:
            raise Malformed("a memo index is out of range")
        self.memo[index] = self.top()


def pairs_of(items: list[Any]) -> list[tuple[Any, Any]]:
    """Pairs of alternating keys and values; keys are converted so that a file cannot choose their hashes."""
    if len(items) % 2:
        raise Malformed("a dictionary has a key without a value")
    return [(key_of(key), value) for key, value in zip(items[::2], items[1::2], strict=True)]


def key_of(key: Any) -> Any:
    """The key itself if it is a name, a small number, None or bytes, else an `OtherKey`."""
    if type(key) in (str, bytes, bool) or key is None or (type(key) is int and 0 <= key < MOST_INTEGER_KEYS):
        return key
    return OtherKey(key)
