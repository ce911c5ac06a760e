"""The inputs of an objective in one training step.

Shapes: B batch, C channels, K classes, H height, W width.
"""

from collections.abc import Iterable
from dataclasses import dataclass, field, replace

import torch
from torch import Tensor

from worker.distillation.distributed.division import UNDIVIDED, Division

IMAGE_FIELDS = ("second_view", "privileged")
"""Fields that only networks read; since no objective does, they are not gathered."""


def _channels_last(image_BCHW: Tensor) -> Tensor:
    return image_BCHW.contiguous(memory_format=torch.channels_last) if image_BCHW.ndim == 4 else image_BCHW


@dataclass
class Outputs:
    """The results of one forward pass of one network.

    `logits` (B, K), or (B, K, ...) with one row of logits for each pixel or region; `taps`: activations by tap name, of any
    shape that begins with B; `parts`: the other values that a network returns, by name, such as proposals. A part begins
    with B too: values that differ in number by sample are padded.
    """

    logits: Tensor
    taps: dict[str, Tensor] = field(default_factory=dict)
    parts: dict[str, Tensor] = field(default_factory=dict)

    def chunks(self, count: int) -> list["Outputs"]:
        """Split the batch into `count` chunks of equal size, in order."""
        taps = {name: tap.chunk(count) for name, tap in self.taps.items()}
        parts = {name: part.chunk(count) for name, part in self.parts.items()}
        return [
            Outputs(
                logits, {name: each[i] for name, each in taps.items()}, {name: each[i] for name, each in parts.items()}
            )
            for i, logits in enumerate(self.logits.chunk(count))
        ]

    def detached(self) -> "Outputs":
        """The same outputs without their graph."""
        taps, parts = ({name: each.detach() for name, each in held.items()} for held in (self.taps, self.parts))
        return Outputs(self.logits.detach(), taps, parts)

    def gathered(self, division: Division, taps: Iterable[str], parts: Iterable[str] = ()) -> "Outputs":
        """The logits, the named taps and the named parts of the whole batch, gathered from all ranks."""
        return Outputs(
            division.gather(self.logits),
            {tap: division.gather(self.taps[tap]) for tap in taps},
            {part: division.gather(self.parts[part]) for part in parts},
        )


@dataclass
class Batch:
    """Samples from a source.

    `image` (B, C, H, W), float, normalised by the student's input contract. `fields` holds the source's other values:
    `label` (B,) int64, `index` (B,) int64 (the same in every epoch), `second_view` (another augmentation of `image`),
    `privileged` (B, C', H', W') normalised by the teacher's contract, for a teacher that reads it instead of `image`,
    `seed` (B,) int64 for tasks whose students draw (`seeded`), ...
    `teacher` is set if the source has already computed the teacher's outputs for these images. `division` says which part
    of a batch these samples are, if several ranks share it. `view` (B,) int64 is set if the source shows a limited number of
    views of its images: the number of each, below `Source.distinct_views`.
    """

    image: Tensor
    fields: dict[str, Tensor] = field(default_factory=dict)
    teacher: Outputs | None = None
    division: Division = UNDIVIDED
    view: Tensor | None = None

    def read(self, name: str) -> Tensor:
        """The input of a network: `image`, or the field with this name."""
        return self.image if name == "image" else self.fields[name]

    def seeded(self, seed: int) -> "Batch":
        """The same batch with the field `seed` (B,) int64, even numbers by the sample's `index`, so that what a student draws for
        an image is the same on any rank."""
        return replace(self, fields=self.fields | {"seed": seed % 2**61 + 2 * self.fields["index"]})

    def channels_last(self) -> "Batch":
        """The same batch, its images in the memory format in which convolutions are fastest on CPUs and GPUs."""
        held = {name: _channels_last(value) if name in IMAGE_FIELDS else value for name, value in self.fields.items()}
        return replace(self, image=_channels_last(self.image), fields=held)


@dataclass
class Step:
    """The inputs of an objective in one step.

    `teacher` is None for jobs without a teacher; `peers` are the detached outputs of the other members of a cohort;
    `progress` runs from 0 to 1 over the stage; `number` counts the stage's steps from 0; `mirrored` are the student's
    outputs for the images flipped left to right, from the same forward pass, if an objective needs them; `second` and
    `second_teacher` are the student's and the teacher's outputs for the second views, if an objective needs `second_view`.
    """

    batch: Batch
    student: Outputs
    teacher: Outputs | None = None
    peers: tuple[Outputs, ...] = ()
    progress: float = 0.0
    number: int = 0
    mirrored: Outputs | None = None
    second: Outputs | None = None
    second_teacher: Outputs | None = None

    @property
    def label(self) -> Tensor:
        """The batch's field `label`."""
        return self.batch.fields["label"]

    def field(self, name: str) -> Tensor:
        """A field of the batch, for objectives that declare that they need it.

        Raises:
            RuntimeError: the batch has no such field.
        """
        if name not in self.batch.fields:
            raise RuntimeError(f"the batch has no field {name!r}, but an objective needs it")
        return self.batch.fields[name]

    def need_teacher(self) -> Outputs:
        """The teacher's outputs, for objectives that declare that they need them.

        Raises:
            RuntimeError: the step has none.
        """
        if self.teacher is None:
            raise RuntimeError("the step has no teacher outputs, but an objective needs them")
        return self.teacher

    def need_second(self) -> Outputs:
        """The student's outputs for the second views, for objectives that declare that they need them.

        Raises:
            RuntimeError: the step has none.
        """
        if self.second is None:
            raise RuntimeError("the step has no student outputs for second views, but an objective needs them")
        return self.second

    def need_second_teacher(self) -> Outputs:
        """The teacher's outputs for the second views, for objectives that declare that they need them.

        Raises:
            RuntimeError: the step has none.
        """
        if self.second_teacher is None:
            raise RuntimeError("the step has no teacher outputs for second views, but an objective needs them")
        return self.second_teacher

    def gathered(self, student: Iterable[str], teacher: Iterable[str]) -> "Step":
        """The step with the samples of all ranks: fields, logits, parts and the named taps, but not the
        images that networks read."""
        division = self.batch.division
        if not division.sizes:
            return self
        fields = {name: division.gather(value) for name, value in self.batch.fields.items() if name not in IMAGE_FIELDS}

        def whole(outputs: Outputs, taps: Iterable[str]) -> Outputs:
            return outputs.gathered(division, taps, outputs.parts)

        return replace(
            self,
            batch=Batch(self.batch.image, fields, division=Division(division.ranks)),
            student=whole(self.student, student),
            teacher=self.teacher and whole(self.teacher, teacher),
            peers=tuple(whole(peer, student) for peer in self.peers),
            mirrored=self.mirrored and whole(self.mirrored, student),
            second=self.second and whole(self.second, student),
            second_teacher=self.second_teacher and whole(self.second_teacher, teacher),
        )
