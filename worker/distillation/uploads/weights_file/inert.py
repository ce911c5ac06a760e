"""What a stranger's pickle becomes: plain data and inert objects of these classes, none of which does anything.

The machine makes only these and None, bool, int, float, str, bytes, tuple, list and dict, each of exactly that type. So no
method that a file defines or chooses can exist, let alone run.
"""

from dataclasses import dataclass, field
from typing import Any

import torch


@dataclass(frozen=True, eq=False, slots=True, repr=False)
class Global:
    """A class or function that the pickle names. It is never looked up."""

    module: str
    name: str

    @property
    def path(self) -> str:
        return f"{self.module}.{self.name}"


@dataclass(eq=False, slots=True, repr=False)
class Made:
    """An object that the pickle asks for: `of` is to be called with `args`, gets `state`, entries and members. Nothing is
    called; this only notes it down."""

    of: Any
    args: tuple[Any, ...] = ()
    state: Any = None
    entries: dict[Any, Any] = field(default_factory=dict)
    members: list[Any] = field(default_factory=list)

    @property
    def path(self) -> str:
        """The full name of its class or function; empty if that is itself the result of a call."""
        return self.of.path if type(self.of) is Global else ""

    def attributes(self) -> dict[Any, Any]:
        """Its attributes as the pickle sets them; empty where the state is no dictionary."""
        state = self.state
        if type(state) is tuple and len(state) == 2:  # attributes, and those in slots
            return {key: value for part in state if type(part) is dict for key, value in part.items()}
        return state if type(state) is dict else {}


@dataclass(frozen=True, eq=False, slots=True, repr=False)
class OtherKey:
    """A key of a dictionary that is neither a name nor a small number; equal only to itself, so that no file chooses hashes."""

    key: Any


@dataclass(frozen=True, eq=False, slots=True, repr=False)
class Storage:
    """A run of numbers that tensors of a pickle view: `numel` of `dtype` (bytes if None), under `key` in the file.

    A view of a storage in old files begins `start` numbers into one of `root_numel`. `refusal` says why its numbers are not
    read. `held` are its bytes where they lie in the pickle itself.
    """

    key: str
    dtype: torch.dtype | None
    numel: int
    start: int = 0
    root_numel: int | None = None
    refusal: str = ""
    held: Any = None

    @property
    def itemsize(self) -> int:
        return self.dtype.itemsize if self.dtype is not None else 1
