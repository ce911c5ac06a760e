"""Source: where training batches come from, either a dataset or a synthesiser such as DAFL."""

from collections.abc import Iterable, Iterator, Mapping
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
"""Default training parameters of students on synthetic images."""
LABEL_FREE_OBJECTIVES: tuple[Mapping[str, Any], ...] = (
    {"name": "kd", "weight": 1.0, "temperature": 4.0},
    {"name": "kd", "weight": 1.0, "temperature": 1.0},
)
"""Default objectives on images without labels."""


@dataclass(frozen=True)
class SourceNeeds:
    """What a source requires of a job; checked at submission from the catalogue."""

    dataset: bool = False
    teacher: bool = False
    teacher_gradient: bool = False
    files: tuple[str, ...] = ()
    """Parameters, ids of uploaded files, that are required."""
    batch_norm: bool = False
    """Matches the running statistics of the teacher's BatchNorm layers."""


@dataclass
class SourceContext:
    """What a source is built from. `teacher` is the frozen copy (its parameters never require a gradient, its input
    may).

    If `teacher_taps` is true, objectives read the teacher's taps, so that logits alone do not make a batch's `teacher`.
    `restarts` is the number of the job's restarts after a collapse of its images. `files` are the uploaded files that
    parameters name. `ranks` are the job's processes; a source that `divides` returns each rank's part of every batch,
    and sets the batch's `division`.
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
    """Position within a stage: `epoch` and `step` within it, `number` of the step in the stage, `progress` from 0 to
    1."""

    epoch: int
    step: int
    number: int
    progress: float


class Source(Method):
    """Makes batches. `state_dict` holds all state that a resume needs; random draws depend on the context's seed and
    the position, or on torch's global generators, which the engine saves and restores."""

    provides: ClassVar[tuple[str, ...]] = ()
    """Batch fields in addition to the image."""
    needs: ClassVar[SourceNeeds] = SourceNeeds()
    samplers: ClassVar[tuple[str, ...]] = ()
    """Samplers that an objective may require (`ObjectiveNeeds.sampler`)."""
    tasks: ClassVar[tuple[str, ...]] = ("classification",)
    """The tasks for which it can make batches."""
    synthesises: ClassVar[bool] = False
    ignores_labels: ClassVar[bool] = False
    """Never reads the dataset's labels: the dataset may have any classes, and no metric is measured on it."""
    calibrates: ClassVar[bool] = True
    """Whether a student's activations on its images are those that real images cause, so that transforms may measure them."""
    divides: ClassVar[bool] = False
    """Gives each of several ranks its part of a batch that does not depend on the number of ranks."""
    training_defaults: ClassVar[Mapping[str, Any]] = {}
    """Default values of a job's `training` that differ from the general defaults."""
    sliced_training_defaults: ClassVar[Mapping[str, Any]] = {}
    """Values that differ from `training_defaults` if the student is initialised with slices of the teacher."""
    objective_defaults: ClassVar[tuple[Mapping[str, Any], ...]] = ()
    """The objectives of a job whose spec names none; empty for the general default."""

    @property
    def provided(self) -> tuple[str, ...]:
        """The batch fields in addition to the image, with the source's parameter values."""
        return self.effective("provides")

    @property
    def most_restarts(self) -> int:
        """Maximum number of restarts of a stage whose images collapse."""
        return 0

    def build(self, context: SourceContext) -> None:
        """Create generators, pools and optimisers; called once for each stage.

        Raises:
            SpecError: this source cannot draw batches as required.
        """
        self.check_sampler(context.sampler)
        self.context = context

    def check_teacher(self, teacher: "Tapped", example: Tensor) -> None:
        """Check that the teacher has what this source reads of it; `example` (B, C, H, W) may be passed through it.

        Raises:
            SpecError: it does not.
        """

    def check_sampler(self, required: str | None) -> None:
        """Check that batches can be drawn as the objectives require.

        Raises:
            SpecError: they cannot.
        """
        if required is not None and required not in self.samplers:
            words = f"cannot draw batches with the sampler {required!r}, which the objectives require"
            raise SpecError([Problem("/source", words)], "Choose other objectives, or the source `dataset`.")

    def check_inputs(self, student: InputContract, teacher: InputContract | None) -> None:
        """Check that batches can be made for the input contracts of the student and of a given teacher.

        Raises:
            SpecError: they cannot.
        """

    def steps_per_epoch(self) -> int:
        raise NotImplementedError

    def generator_steps(self, number: int) -> int:
        """Number of generator steps due before the students' step `number`, counted over the stage.

        Those before step 0 are the phase `synthesising`. A synthesiser that works in rounds between the students' steps
        has more of them before later steps.
        """
        return 0

    def generator_step(self, number: int, students: Mapping[str, nn.Module]) -> None:
        """Take generator step `number`, counted over the stage: train the generator, or optimise the images."""

    def batch(self, position: Position, students: Mapping[str, nn.Module]) -> Batch:
        """The batch of this step.

        A synthesiser may train its own generator here, against the teacher and the live students. It must not change
        the students: no gradients, no updated BatchNorm statistics.
        """
        raise NotImplementedError

    def check_distinct_views(self) -> None:
        """Check that the source shows a limited number of views, so that a teacher's outputs for them can be cached.

        Raises:
            SpecError: it does not.
        """
        words = "cannot be `cached`, because the source makes new images all the time"
        raise SpecError([Problem("/training/teacher_answers", words)], "Choose `live`, or the source `dataset`.")

    def distinct_views(self) -> int | None:
        """Number of different views of images in all batches together, if every batch says which it shows; else None."""
        return None

    def every_view(self) -> Iterator[Batch]:
        """All views in the order of their numbers, in batches of the training's size (the last one is filled up with the first
        views again); on several ranks each gives its part of the batches."""
        raise NotImplementedError

    def metrics(self) -> dict[str, Tensor | float]:
        """Metrics of the source's own training since the last call, read every few seconds."""
        return {}

    def warnings(self) -> tuple[str, ...]:
        """Warnings about the source's own training for the job's user; all so far, at every call."""
        return ()

    def previews(self) -> dict[str, Tensor]:
        """Previews by name: images (N, C, H, W) in normalised space. Called once an epoch."""
        return {}

    def samples(self, count: int) -> Tensor | None:
        """New images of a synthesiser, (count, C, H, W) normalised, for an evaluation without data; None for a
        dataset."""
        return None

    def calibration(self, count: int) -> Tensor | None:
        """At most `count` of a synthesiser's images as students see them, (n, C, H, W) normalised, for transforms that measure
        activations; None for a dataset. Does not change the source's state."""
        return self.samples(count)

    def state_dict(self) -> dict[str, Any]:
        """Nested plain data and tensors; each top-level key becomes one immutable part of a checkpoint."""
        return {}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restore what `state_dict` returned, after `build` with an equal context."""


def check_fields(source: Source, fields: Iterable[str]) -> None:
    """Check that a source's batches hold these fields.

    Raises:
        SpecError: some are missing.
    """
    missing = sorted(set(fields) - set(source.provided))
    for (parameter, value), then in source.when.items():
        if given := [name for name in then.get("provides", ()) if name in missing]:
            words = f"must be {value!r}: the objectives need the batch fields {', '.join(given)}"
            raise SpecError([Problem(f"/source/{parameter}", words)])
    if missing:
        words = f"does not provide the batch fields that the objectives need: {', '.join(missing)}"
        raise SpecError([Problem("/source", words)], "Choose other objectives, or the source `dataset` with a dataset.")


LabelsOf = Literal["none", "teacher"]
"""Where labels come from if a source has none of its own."""


FIELDS = {"segmentation": "mask", "depth": "depth"}
"""The field of the teacher's predictions by task, where it is not `label`."""


def chosen_of(logits_BK: Tensor, task: str) -> Tensor:
    """The teacher's predictions as labels: the predicted class (B,) int64, of each pixel (B, H, W) for maps of logits; for
    multi-label 0 or 1 of each label (B, K) float; the depth (B, H, W) in metres."""
    if task == "depth":
        return logits_BK[:, 0]
    return (logits_BK > 0).float() if task == "multi_label" else logits_BK.argmax(dim=1)


LEAST_SCORE = 0.5
"""Least score of a detection that counts as an object."""


def detected_of(detections_BD6: Tensor) -> dict[str, Tensor]:
    """The teacher's detections as labels: `boxes` (B, D, 4) and `box_label` (B, D) int64, -1 where the score is below 0.5."""
    kept = (detections_BD6[..., 5] >= 0) & (detections_BD6[..., 4] >= LEAST_SCORE)
    boxes = torch.where(kept[..., None], detections_BD6[..., :4], torch.zeros_like(detections_BD6[..., :4]))
    return {"boxes": boxes, "box_label": torch.where(kept, detections_BD6[..., 5].long(), -1)}


def taught(batch: Batch, context: SourceContext) -> Batch:
    """The batch with the outputs of the context's teacher, and its predictions as the field `label`, `mask`, `depth` or `boxes`."""
    teacher = context.teacher
    assert teacher is not None
    with torch.no_grad(), torch.autocast(batch.image.device.type, enabled=False):
        outputs = teacher(batch.image)
    if context.task == "detection":  # the teacher's outputs are those for the student's regions, which do not exist yet
        return replace(batch, fields=batch.fields | detected_of(outputs.logits))
    return replace(
        batch,
        fields=batch.fields | {FIELDS.get(context.task, "label"): chosen_of(outputs.logits, context.task)},
        teacher=outputs,
    )
