"""What objectives that relate samples to each other share: one vector a sample, and distances.

Shapes: B batch, C channels, D dimensions of a vector.
"""

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from worker.distillation.errors import Problem, SpecError
from worker.distillation.introspection.tap_map import TapMap, Taps, refuse_default_tap
from worker.distillation.objective import Objective
from worker.distillation.parameters import TapPair
from worker.distillation.precision import single
from worker.distillation.step import Outputs, Step

DIMENSIONS = (2, 4)
OUTPUT = "output"
"""Stands for what the network gives, where that is the embedding."""


class EmbeddingObjective(Objective):
    """An objective that reads one tap of each network, named by its parameter `tap`.

    Null stands for what the classifier reads, and in the task `embedding` for what the network gives.
    """

    least_samples: ClassVar[int] = 1
    """A smaller batch holds nothing to measure."""

    @dataclass(frozen=True)
    class Parameters:
        """What every such objective has at least."""

        tap: TapPair | None = None

    def taps(self, student: TapMap, teacher: TapMap | None) -> Taps:
        if teacher is None:
            raise SpecError([Problem("/name", "needs a teacher")])
        if self.task == "embedding" and self.settings.tap is None:
            self.tap = (OUTPUT, OUTPUT)
            return Taps()
        mine, theirs = self.settings.tap or (None, None)
        self.tap = (
            embedding_tap(mine, student, "student", "/tap/0"),
            embedding_tap(theirs, teacher, "teacher", "/tap/1"),
        )
        if self.settings.tap is None:
            refuse_default_tap(teacher, self.tap, "/tap")
        return Taps((self.tap[0],), (self.tap[1],))

    def embeddings(self, step: Step) -> tuple[Tensor, Tensor]:
        """The student's vectors (B, D) and the teacher's (B, E), in single precision.

        Raises:
            SpecError: the batch is too small.
        """
        check_batch(len(step.student.logits), self.least_samples)
        return embedding_of(step.student, self.tap[0]), embedding_of(step.need_teacher(), self.tap[1])


def embedding_tap(wanted: str | None, map_: TapMap, whose: str, pointer: str) -> str:
    """The tap that a job names, checked, or by default what the network's classifier reads.

    Raises:
        SpecError: there is no such tap, or it is neither a vector nor a map of channels.
    """
    tap = wanted or map_.classifier
    if tap is None:
        raise SpecError(
            [Problem("/tap", f"the {whose} has no linear classifier whose input could be read; name a tap")]
        )
    shape = map_.shape(tap)
    if shape is None:
        raise SpecError([Problem(pointer, f"the {whose} has no tap called {tap!r}; {map_.nearest(tap)}")])
    if len(shape) + 1 not in DIMENSIONS:
        words = f"the {whose}'s tap has {len(shape) + 1} dimensions, the batch counted"
        raise SpecError([Problem(pointer, f"{words}; choose a tap of {' or '.join(map(str, DIMENSIONS))}")])
    return tap


def embedding_of(outputs: Outputs, tap: str) -> Tensor:
    """A tap as one vector a sample (B, C), a map's mean over its pixels, in single precision."""
    value = single(outputs.logits if tap == OUTPUT else outputs.taps[tap])
    return value.mean((2, 3)) if value.ndim == 4 else value


def check_batch(samples: int, least: int) -> None:
    """See that a batch has enough samples to relate.

    Raises:
        SpecError: it has too few.
    """
    if samples < least:
        words = f"a batch of {samples} holds nothing to relate: the objectives need at least {least} images at once"
        raise SpecError([Problem("/training/batch_size", words)], "Raise it, or let the source drop the last batch.")


def distances(x_BD: Tensor) -> Tensor:
    """Euclidean distances (B, B) of all pairs, exact for near ones; the gradient of a distance of 0 is 0."""
    return torch.cdist(x_BD, x_BD, compute_mode="donot_use_mm_for_euclid_dist")
