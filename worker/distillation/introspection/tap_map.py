"""Which taps a network offers, and which of them an objective wants."""

import difflib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from worker.distillation.errors import Problem, SpecError


@dataclass(frozen=True)
class Taps:
    """Names of the activations that an objective wants captured."""

    student: tuple[str, ...] = ()
    teacher: tuple[str, ...] = ()


@dataclass(frozen=True)
class TapMap:
    """The taps that a network offers.

    `shapes` (without the batch) of `PATH` and `PATH:pre`, in order of execution; `stages`: the last 4-D tap at each
    resolution (of the outermost modules), large to small; `inputs`: shapes of `PATH:in`, the input of a module;
    `classifier`: the `PATH:in` that the final classifier reads, None where there is none.
    """

    shapes: Mapping[str, tuple[int, ...]]
    stages: tuple[str, ...]
    inputs: Mapping[str, tuple[int, ...]] = field(default_factory=dict)
    classifier: str | None = None
    leading: str = ""
    """How the taps begin among which defaults are found: all of them, or those of an ensemble's first member."""

    def shape(self, tap: str) -> tuple[int, ...] | None:
        """The shape of a tap without the batch, or None where the network has no such tap."""
        return self.shapes.get(tap, self.inputs.get(tap))

    def channels(self, tap: str) -> int | None:
        """The length of a tap's first dimension after the batch, or None where the network has no such tap."""
        shape = self.shape(tap)
        return shape[0] if shape else None

    def nearest(self, tap: str) -> str:
        """Words for an error: the names closest to one that does not exist."""
        close = difflib.get_close_matches(tap, [*self.shapes, *self.inputs], n=5, cutoff=0.4)
        return f"the nearest are {', '.join(close)}" if close else f"there are {', '.join(self.shapes)}"


def refuse_default_tap(teacher: TapMap, found: Any, pointer: str) -> None:
    """See that it is clear whose features are compared where a job names no tap: each of several teachers has its own.

    Raises:
        SpecError: the teacher is an ensemble; the message has `found`, the default for its first member, as JSON.
    """
    if teacher.leading:
        words = "must say whose, since each of several teachers has features of its own; the first's are"
        raise SpecError([Problem(pointer, f"{words} {json.dumps(found)}")])
