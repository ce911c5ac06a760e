"""The taps of a network, and those that an objective reads."""

import difflib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from worker.distillation.errors import Problem, SpecError


@dataclass(frozen=True)
class Taps:
    """Names of the taps that an objective reads."""

    student: tuple[str, ...] = ()
    teacher: tuple[str, ...] = ()


@dataclass(frozen=True)
class TapMap:
    """The taps of a network.

    `shapes` (without the batch) of `PATH` and `PATH:pre`, in order of execution; `stages`: the last 4-D tap at each
    resolution (of the outermost modules), large to small; `inputs`: shapes of `PATH:in`, the input of a module;
    `classifier`: the `PATH:in` of the final classifier, None if there is none.
    """

    shapes: Mapping[str, tuple[int, ...]]
    stages: tuple[str, ...]
    inputs: Mapping[str, tuple[int, ...]] = field(default_factory=dict)
    classifier: str | None = None
    before_activation: Mapping[str, str] = field(default_factory=dict)
    """For each stage the tap of its values before the activation that follows it."""
    leading: str = ""
    """Prefix of the taps among which defaults are chosen: empty, or that of an ensemble's first member."""

    def shape(self, tap: str) -> tuple[int, ...] | None:
        """The shape of a tap without the batch, or None if the network has no such tap."""
        return self.shapes.get(tap, self.inputs.get(tap))

    def channels(self, tap: str) -> int | None:
        """The length of a tap's first dimension after the batch, or None if the network has no such tap."""
        shape = self.shape(tap)
        return shape[0] if shape else None

    def nearest(self, tap: str) -> str:
        """The end of an error message: the names closest to one that does not exist."""
        close = difflib.get_close_matches(tap, [*self.shapes, *self.inputs], n=5, cutoff=0.4)
        return f"the most similar are {', '.join(close)}" if close else f"it has {', '.join(self.shapes)}"


def refuse_default_tap(teacher: TapMap, found: Any, pointer: str) -> None:
    """Check that the teacher is not an ensemble if a job names no tap: each member has features of its own.

    Raises:
        SpecError: it is an ensemble; the message contains `found`, the default for its first member, as JSON.
    """
    if teacher.leading:
        message = "is required: each of several teachers has features of its own; for the first teacher, send"
        raise SpecError([Problem(pointer, f"{message} {json.dumps(found)}")])
