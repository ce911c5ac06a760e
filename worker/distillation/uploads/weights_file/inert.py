"""The result of reading an untrusted pickle: plain data, and inert objects of these classes, which have no behaviour.

The pickle machine creates only these and None, bool, int, float, str, bytes, tuple, list and dict, each of exactly that
type. So no method that a file defines or chooses exists or runs.
"""

from dataclasses import dataclass, field
from typing import Any

import torch


@dataclass(frozen=True, eq=False, slots=True, repr=False)
class Global:
    """A class or function that the pickle names; it is never looked up."""

    module: str
    name: str

    @property
    def path(self) -> str:
        return f"{self.module}.{self.name}"


@dataclass(eq=False, slots=True, repr=False)
class Made:
    """Describes an object that the pickle would create by calling `of` with `args`, and its state, dictionary entries and
    list members. Nothing is called."""

    of: Any
    args: tuple[Any, ...] = ()
    state: Any = None
    entries: dict[Any, Any] = field(default_factory=dict)
    members: list[Any] = field(default_factory=list)

    @property
    def path(self) -> str:
        """The full name of its class or function; empty if `of` is itself the result of a call."""
        return self.of.path if type(self.of) is Global else ""

    def attributes(self) -> dict[Any, Any]:
        """The attributes that the pickle sets; empty if the state is not a dictionary."""
        state = self.state
        if type(state) is tuple and len(state) == 2:  # attributes, and attributes in slots
            return {key: value for part in state if type(part) is dict for key, value in part.items()}
        return state if type(state) is dict else {}


@dataclass(frozen=True, eq=False, slots=True, repr=False)
class OtherKey:
    """A dictionary key that is neither a name nor a small number; equal only to itself, so that files cannot choose hashes."""

    key: Any


@dataclass(frozen=True, eq=False, slots=True, repr=False)
class Storage:
    """A storage of tensors: `numel` elements of `dtype` (bytes if None), under `key` in the file.

    In old files, a view of a storage with `root_numel` elements begins at element `start`. `refusal` is the reason why the
    storage is not supported, if any. `held` are its bytes if the pickle itself contains them.
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
