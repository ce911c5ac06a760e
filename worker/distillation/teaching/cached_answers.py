"""A frozen teacher's logits for every view of every training image, computed once before the first step.

They are a frozen part of the job's checkpoints, so that a resumed run reads the same numbers.

They equal, bit for bit, what the teacher would give at each step if its logits for an image do not depend on the image's place in
the batch, because they are computed on batches of the size of the training's. That holds for convolutions on a CPU; where a
library sums in another order by place, the difference is one of rounding.
"""

from collections.abc import Callable
from typing import Any, Protocol

import torch
from torch import Tensor

from worker.distillation.errors import Problem, SpecError
from worker.distillation.process.heartbeat import pulse
from worker.distillation.source import Source
from worker.distillation.step import Batch, Outputs

MOST_BYTES = 2**31
POINTER = "/training/teacher_answers"


class CachedAnswers:
    """Logits (N, K) by the number of the view (`Batch.view`)."""

    def __init__(self, logits_NK: Tensor):
        self.logits_NK = logits_NK

    def of(self, view_B: Tensor) -> Outputs:
        """The teacher's outputs for the views with these numbers."""
        return Outputs(self.logits_NK[view_B])


class FrozenParts(Protocol):
    """The frozen parts of a run's checkpoints."""

    def frozen(self) -> tuple[str, ...]: ...

    def freeze(self, name: str, state: Any) -> None: ...

    def thaw(self, name: str) -> Any: ...


def answers_part(stage: str) -> str:
    """Name of the checkpoint part that holds a stage's cached answers; it is dropped at the end of the stage."""
    return f"answers/{stage}"


def kept_answers(
    parts: FrozenParts, stage: str, source: Source, teach: Callable[[Batch], Tensor], classes: int
) -> CachedAnswers:
    """The answers of a checkpoint, or else new ones, which are frozen.

    Raises:
        SpecError: the source shows new images all the time, or too many.
    """
    context = source.context
    source.check_distinct_views()
    check_size(source.distinct_views() or 0, classes)
    name = answers_part(stage)
    if name not in parts.frozen():
        parts.freeze(name, fill(source, teach))
    return CachedAnswers(parts.thaw(name).to(context.device))


def check_size(views: int, classes: int) -> None:
    """Check that logits of so many views can be held.

    Raises:
        SpecError: they take more than `MOST_BYTES`.
    """
    needed = 4 * views * classes
    if needed > MOST_BYTES:
        words = f"needs {needed / 2**30:.1f} GiB for {views} views of {classes} outputs; the limit is {MOST_BYTES // 2**30} GiB"
        raise SpecError([Problem(POINTER, words)], "Reduce source/views, or choose `live`.")


@torch.no_grad()
def fill(source: Source, teach: Callable[[Batch], Tensor]) -> Tensor:
    """The logits (N, K) of all views of a source, in the order of their numbers; `teach` gives those of a batch (B, K).

    The batches are divided among the ranks, and every rank gets all logits.
    """
    count = source.distinct_views()
    assert count is not None
    logits: Tensor | None = None
    for batch in source.every_view():
        pulse()
        assert batch.view is not None
        given = teach(batch.channels_last())
        if logits is None:
            logits = given.new_zeros((count, *given.shape[1:]))
        fresh = batch.view >= batch.view[0]  # not those that fill up the last batch, which may be another rank's
        logits[batch.view[fresh]] = given[fresh]
    assert logits is not None
    source.context.ranks.add_up([logits])
    return logits
