"""Base class and functions of objectives on relations between samples: one embedding per sample, and distances.

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
"""Stands for the network's output, if that is the embedding."""


class EmbeddingObjective(Objective):
    """An objective that reads one tap of each network, named by its parameter `tap`.

    Null stands for the penultimate features, and in the task `embedding` for the network's output.
    """

    least_samples: ClassVar[int] = 1
    """Smallest batch for which the loss is defined."""

    @dataclass(frozen=True)
    class Parameters:
        """Parameters of every such objective."""

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
        """The student's vectors (B, D) and the teacher's (B, E), in float32.

        Raises:
            SpecError: the batch is too small.
        """
        check_batch(len(step.student.logits), self.least_samples)
        return embedding_of(step.student, self.tap[0]), embedding_of(step.need_teacher(), self.tap[1])


def embedding_tap(wanted: str | None, map_: TapMap, role: str, pointer: str) -> str:
    """The tap that a job names, checked, or by default the input of the network's classifier.

    Raises:
        SpecError: there is no such tap, or it is neither a vector nor a feature map.
    """
    tap = wanted or map_.classifier
    if tap is None:
        raise SpecError(
            [Problem("/tap", f"is required: the {role} has no linear classifier whose input could be the default")]
        )
    shape = map_.shape(tap)
    if shape is None:
        raise SpecError([Problem(pointer, f"the {role} has no tap {tap!r}; {map_.nearest(tap)}")])
    if len(shape) + 1 not in DIMENSIONS:
        message = f"the {role}'s tap has {len(shape) + 1} dimensions, including the batch"
        raise SpecError([Problem(pointer, f"{message}; choose a tap with {' or '.join(map(str, DIMENSIONS))}")])
    return tap


def embedding_of(outputs: Outputs, tap: str) -> Tensor:
    """A tap as one vector per sample (B, C) in float32; feature maps are averaged over their pixels."""
    value = single(outputs.logits if tap == OUTPUT else outputs.taps[tap])
    return value.mean((2, 3)) if value.ndim == 4 else value


def check_batch(samples: int, least: int) -> None:
    """Check that a batch has enough samples.

    Raises:
        SpecError: it has too few.
    """
    if samples < least:
        message = f"a batch of {samples} is too small: the objectives need at least {least} images in every batch"
        hint = "Raise the batch size, or let the source drop the last batch."
        raise SpecError([Problem("/training/batch_size", message)], hint)


def distances(x_BD: Tensor) -> Tensor:
    """Euclidean distances (B, B) of all pairs, accurate for close pairs; the gradient of a distance of 0 is 0."""
    return torch.cdist(x_BD, x_BD, compute_mode="donot_use_mm_for_euclid_dist")
