"""Source: where training batches come from: a dataset, or a synthesiser such as DAFL."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

import torch
from torch import Tensor, nn

from worker.distillation.errors import Problem, SpecError
from worker.distillation.ranks import ALONE, Ranks
from worker.distillation.step import Batch

if TYPE_CHECKING:
    from worker.distillation.data.images import Images
    from worker.distillation.taps import Tapped


@dataclass(frozen=True)
class InputContract:
    """What a network reads: float images (B, channels, height, width), `(pixel / 255 - mean) / std` per channel."""

    channels: int
    height: int
    width: int
    mean: tuple[float, ...]
    std: tuple[float, ...]


@dataclass(frozen=True)
class SourceNeeds:
    """What a job must offer for a source to work; checked at submission from the catalogue."""

    dataset: bool = False
    teacher: bool = False
    teacher_gradient: bool = False


@dataclass
class SourceContext:
    """What a source is built from. `teacher` is the frozen copy (its parameters never require a gradient, its input may).

    `teacher_taps` says that objectives read the teacher's taps, so that logits alone do not make a batch's `teacher`.
    `ranks` are the job's processes; a source that `divides` gives each its part of every batch, and says so in it.
    """

    teacher: "Tapped | None"
    contract: InputContract
    classes: int
    dataset: "Images | None"
    batch_size: int
    total_steps: int | None
    sampler: str | None
    fields: tuple[str, ...]
    seed: int
    device: torch.device
    teacher_taps: bool = False
    ranks: Ranks = ALONE


@dataclass(frozen=True)
class Position:
    """Where a stage stands: `epoch` and `step` within it, `number` of the step in the stage, `progress` from 0 to 1."""

    epoch: int
    step: int
    number: int
    progress: float


class Source:
    """Makes batches. All state that a resume needs is in `state_dict`; draws depend on the context's seed and the
    position, or on torch's global generators, which the engine saves and restores."""

    paper: ClassVar[str] = ""
    provides: ClassVar[tuple[str, ...]] = ()
    """Batch fields beside the image."""
    needs: ClassVar[SourceNeeds] = SourceNeeds()
    samplers: ClassVar[tuple[str, ...]] = ()
    """Ways of drawing batches that an objective may demand (`Needs.sampler`)."""
    synthesises: ClassVar[bool] = False
    divides: ClassVar[bool] = False
    """Gives each of several ranks its part of a batch that does not depend on how many they are."""
    training_defaults: ClassVar[Mapping[str, Any]] = {}
    """What a job's `training` holds where its user said nothing, different from the general defaults."""
    objective_defaults: ClassVar[tuple[Mapping[str, Any], ...]] = ()
    """The objectives of a job whose user named none; empty for the general default."""

    @dataclass(frozen=True)
    class Parameters:
        """No parameters."""

    def __init__(self, parameters: Any = None):
        self.parameters = self.Parameters() if parameters is None else parameters

    def build(self, context: SourceContext) -> None:
        """Make generators, pools and optimisers; called once a stage.

        Raises:
            SpecError: batches are demanded in a way that this source cannot draw them.
        """
        self.check_sampler(context.sampler)
        self.context = context

    def check_sampler(self, demanded: str | None) -> None:
        """See that batches can be drawn as the objectives demand.

        Raises:
            SpecError: they cannot.
        """
        if demanded is not None and demanded not in self.samplers:
            words = f"cannot draw batches by the sampler {demanded!r}, as the objectives demand"
            raise SpecError([Problem("/source", words)], "Choose other objectives, or the source `dataset`.")

    def steps_per_epoch(self) -> int:
        raise NotImplementedError

    def warm_up_steps(self) -> int:
        """Steps of its own that a synthesiser takes before the students' first step (phase `synthesising`)."""
        return 0

    def warm_up(self, number: int, students: Mapping[str, nn.Module]) -> None:
        """One of those steps."""

    def batch(self, position: Position, students: Mapping[str, nn.Module]) -> Batch:
        """The batch of this step. A synthesiser may train its own generator here, against the teacher and the live
        students (which it must leave as it finds them: no gradients, no moved BatchNorm statistics)."""
        raise NotImplementedError

    def metrics(self) -> dict[str, Tensor | float]:
        """Figures of the source's own training since the last call, read every few seconds."""
        return {}

    def previews(self) -> dict[str, Tensor]:
        """Pictures worth showing by name: (N, C, H, W) in normalised space. Asked once an epoch."""
        return {}

    def samples(self, count: int) -> Tensor | None:
        """Fresh images of a synthesiser, (count, C, H, W) normalised, for a score without data; None for a dataset."""
        return None

    def state_dict(self) -> dict[str, Any]:
        """Nested plain data and tensors; each top-level key becomes one immutable part of a checkpoint."""
        return {}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Undo `state_dict`, after `build` with an equal context."""


def check_fields(source: Source, fields: Iterable[str]) -> None:
    """See that a source's batches hold these fields.

    Raises:
        SpecError: some are missing.
    """
    missing = sorted(set(fields) - set(source.provides))
    if missing:
        words = f"does not provide the batch fields that the objectives need: {', '.join(missing)}"
        raise SpecError([Problem("/source", words)], "Choose other objectives, or the source `dataset` with a dataset.")
