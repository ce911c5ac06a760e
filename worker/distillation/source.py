"""Source: where training batches come from: a dataset, or a synthesiser such as DAFL."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Literal

import torch
from torch import Tensor, nn

from worker.distillation.contract import InputContract
from worker.distillation.distributed.ranks import ALONE, Ranks
from worker.distillation.errors import Problem, SpecError
from worker.distillation.method import Method
from worker.distillation.step import Batch

if TYPE_CHECKING:
    from worker.distillation.data.images import Images
    from worker.distillation.introspection.taps import Tapped


DATA_FREE_TRAINING: Mapping[str, Any] = {
    "steps": 2_400, "batch_size": 256, "optimizer": "adam", "learning_rate": 4e-3, "weight_decay": 0.0,
    "schedule": "cosine", "final_learning_rate_fraction": 0.005, "warm_up_steps": 100,
}  # fmt: skip
"""How students train by default on images that are not data."""
LABEL_FREE_OBJECTIVES: tuple[Mapping[str, Any], ...] = (
    {"name": "kd", "weight": 1.0, "temperature": 4.0},
    {"name": "kd", "weight": 1.0, "temperature": 1.0},
)
"""What they learn by default on images without labels."""


@dataclass(frozen=True)
class SourceNeeds:
    """What a job must offer for a source to work; checked at submission from the catalogue."""

    dataset: bool = False
    teacher: bool = False
    teacher_gradient: bool = False
    files: tuple[str, ...] = ()
    """Parameters, ids of uploaded files, that must be given."""
    batch_norm: bool = False
    """Matches the statistics that the teacher's BatchNorm layers keep."""


@dataclass
class SourceContext:
    """What a source is built from. `teacher` is the frozen copy (its parameters never require a gradient, its input may).

    `teacher_taps` says that objectives read the teacher's taps, so that logits alone do not make a batch's `teacher`.
    `restarts`: how often the job's images have collapsed and been begun again. `files` are the uploaded files that
    parameters name. `ranks` are the job's processes; a source that `divides` gives each its part of every batch, and says
    so in it.
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
    task: str
    teacher_taps: bool = False
    ranks: Ranks = ALONE
    files: Mapping[str, Path] = field(default_factory=dict)
    restarts: int = 0


@dataclass(frozen=True)
class Position:
    """Where a stage stands: `epoch` and `step` within it, `number` of the step in the stage, `progress` from 0 to 1."""

    epoch: int
    step: int
    number: int
    progress: float


class Source(Method):
    """Makes batches. All state that a resume needs is in `state_dict`; draws depend on the context's seed and the
    position, or on torch's global generators, which the engine saves and restores."""

    provides: ClassVar[tuple[str, ...]] = ()
    """Batch fields beside the image."""
    needs: ClassVar[SourceNeeds] = SourceNeeds()
    samplers: ClassVar[tuple[str, ...]] = ()
    """Ways of drawing batches that an objective may demand (`Needs.sampler`)."""
    tasks: ClassVar[tuple[str, ...]] = ("classification",)
    """The tasks that it can make batches for."""
    synthesises: ClassVar[bool] = False
    ignores_labels: ClassVar[bool] = False
    """Never reads the dataset's labels: it may be of any classes, and measures nothing."""
    divides: ClassVar[bool] = False
    """Gives each of several ranks its part of a batch that does not depend on how many they are."""
    training_defaults: ClassVar[Mapping[str, Any]] = {}
    """What a job's `training` holds where its user said nothing, different from the general defaults."""
    sliced_training_defaults: ClassVar[Mapping[str, Any]] = {}
    """What differs from these where the student begins as slices of the teacher."""
    objective_defaults: ClassVar[tuple[Mapping[str, Any], ...]] = ()
    """The objectives of a job whose user named none; empty for the general default."""

    @property
    def provided(self) -> tuple[str, ...]:
        """The batch fields beside the image, with the parameters that it has."""
        return self.effective("provides")

    @property
    def most_restarts(self) -> int:
        """How often a stage may be begun again whose images collapse."""
        return 0

    def build(self, context: SourceContext) -> None:
        """Make generators, pools and optimisers; called once a stage.

        Raises:
            SpecError: batches are demanded in a way that this source cannot draw them.
        """
        self.check_sampler(context.sampler)
        self.context = context

    def check_teacher(self, teacher: "Tapped", example: Tensor) -> None:
        """See that the teacher has what this source reads of it; `example` (B, C, H, W) may be passed through it.

        Raises:
            SpecError: it has not.
        """

    def check_sampler(self, demanded: str | None) -> None:
        """See that batches can be drawn as the objectives demand.

        Raises:
            SpecError: they cannot.
        """
        if demanded is not None and demanded not in self.samplers:
            words = f"cannot draw batches by the sampler {demanded!r}, as the objectives demand"
            raise SpecError([Problem("/source", words)], "Choose other objectives, or the source `dataset`.")

    def check_inputs(self, student: InputContract, teacher: InputContract | None) -> None:
        """See that batches can be made for what the student reads, and a given teacher.

        Raises:
            SpecError: they cannot.
        """

    def steps_per_epoch(self) -> int:
        raise NotImplementedError

    def generator_steps(self, number: int) -> int:
        """Generator steps that are due before the students' step `number`, counted over the stage.

        Those before step 0 are the phase `synthesising`. There are more before later ones where a synthesiser works in rounds
        between the students' steps.
        """
        return 0

    def generator_step(self, number: int, students: Mapping[str, nn.Module]) -> None:
        """Take generator step `number`, counted over the stage: train what makes images, or the images themselves."""

    def batch(self, position: Position, students: Mapping[str, nn.Module]) -> Batch:
        """The batch of this step. A synthesiser may train its own generator here, against the teacher and the live
        students (which it must leave as it finds them: no gradients, no moved BatchNorm statistics)."""
        raise NotImplementedError

    def metrics(self) -> dict[str, Tensor | float]:
        """Figures of the source's own training since the last call, read every few seconds."""
        return {}

    def warnings(self) -> tuple[str, ...]:
        """Sentences about the source's own training that the job's user should hear of; all so far, at every call."""
        return ()

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
    missing = sorted(set(fields) - set(source.provided))
    for (parameter, value), then in source.when.items():
        if given := [name for name in then.get("provides", ()) if name in missing]:
            words = f"must be {value!r}, since the objectives need the batch fields {', '.join(given)}"
            raise SpecError([Problem(f"/source/{parameter}", words)])
    if missing:
        words = f"does not provide the batch fields that the objectives need: {', '.join(missing)}"
        raise SpecError([Problem("/source", words)], "Choose other objectives, or the source `dataset` with a dataset.")


LabelsOf = Literal["none", "teacher"]
"""Who labels the images of a source whose own labels are unknown."""


def chosen_of(logits_BK: Tensor, task: str) -> Tensor:
    """What a teacher says of images, as labels: the likeliest class (B,) int64, or of several labels each 0 or 1 (B, K) float."""
    return (logits_BK > 0).float() if task == "multi_label" else logits_BK.argmax(dim=1)


def taught(batch: Batch, context: SourceContext) -> Batch:
    """The batch with the outputs of the context's teacher, and what it chooses as the field `label`."""
    teacher = context.teacher
    assert teacher is not None
    with torch.no_grad(), torch.autocast(batch.image.device.type, enabled=False):
        outputs = teacher(batch.image)
    return replace(batch, fields=batch.fields | {"label": chosen_of(outputs.logits, context.task)}, teacher=outputs)
