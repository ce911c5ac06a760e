"""What an objective may read of one training step.

Shapes: B batch, C channels, K classes, H height, W width.
"""

from collections.abc import Iterable
from dataclasses import dataclass, field, replace

from torch import Tensor

from worker.distillation.distributed.division import UNDIVIDED, Division

PICTURES = ("second_view", "privileged")
"""Fields that networks read and no objective does, so that they need not be gathered."""


@dataclass
class Outputs:
    """What one forward pass of one network gave.

    `logits` (B, K); `taps`: activations by tap name, of any shape that begins with B.
    """

    logits: Tensor
    taps: dict[str, Tensor] = field(default_factory=dict)

    def parts(self, count: int) -> list["Outputs"]:
        """The samples in so many parts of one size, in their order."""
        logits = self.logits.chunk(count)
        taps = {name: tap.chunk(count) for name, tap in self.taps.items()}
        return [Outputs(part, {name: tap[i] for name, tap in taps.items()}) for i, part in enumerate(logits)]

    def detached(self) -> "Outputs":
        return Outputs(self.logits.detach(), {name: tap.detach() for name, tap in self.taps.items()})

    def gathered(self, division: Division, taps: Iterable[str]) -> "Outputs":
        """The logits and some of the taps of the whole batch, of which this is one rank's part."""
        return Outputs(division.gather(self.logits), {tap: division.gather(self.taps[tap]) for tap in taps})


@dataclass
class Batch:
    """Samples from a source.

    `image` (B, C, H, W), float, normalised as the student's input contract says. `fields` holds what else the source
    provides: `label` (B,) int64, `index` (B,) int64 (stable over epochs), `second_view` (another augmentation of
    `image`), `privileged` (B, C', H', W') as the teacher's contract says, where it reads that and not the image, ...
    `teacher` is set where the source has already computed the teacher's outputs on these very images. `division` says
    which part of a batch these samples are, where several ranks share it.
    """

    image: Tensor
    fields: dict[str, Tensor] = field(default_factory=dict)
    teacher: Outputs | None = None
    division: Division = UNDIVIDED

    def read(self, name: str) -> Tensor:
        """What a network is given: `image`, or the field of that name."""
        return self.image if name == "image" else self.fields[name]


@dataclass
class Step:
    """Everything an objective may read in one step.

    `teacher` is None for jobs without a teacher; `peers` are the detached outputs of the other members of a cohort;
    `progress` runs from 0 to 1 over the stage; `number` counts the stage's steps from 0; `mirrored` are the student's
    outputs for the images flipped left to right, from the same forward pass, where an objective needs them; `second` and
    `second_teacher` are both networks' outputs for the batch's second views, where one needs the field `second_view`.
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
        return self.batch.fields["label"]

    def need_teacher(self) -> Outputs:
        """The teacher's outputs, for objectives that have declared that they need them."""
        if self.teacher is None:
            raise RuntimeError("an objective that needs a teacher was given none")
        return self.teacher

    def need_second(self) -> Outputs:
        """The student's outputs for the second views, for objectives that have declared that they need them."""
        if self.second is None:
            raise RuntimeError("an objective that needs second views was given none")
        return self.second

    def need_second_teacher(self) -> Outputs:
        """The teacher's outputs for the second views, likewise."""
        if self.second_teacher is None:
            raise RuntimeError("an objective that needs a teacher's outputs for second views was given none")
        return self.second_teacher

    def gathered(self, student: Iterable[str], teacher: Iterable[str]) -> "Step":
        """The same step with all ranks' samples: fields, outputs, and the taps that are named; not images and second views."""
        division = self.batch.division
        if not division.sizes:
            return self
        fields = {name: division.gather(value) for name, value in self.batch.fields.items() if name not in PICTURES}
        return replace(
            self,
            batch=Batch(self.batch.image, fields, division=Division(division.ranks)),
            student=self.student.gathered(division, student),
            teacher=self.teacher and self.teacher.gathered(division, teacher),
            peers=tuple(peer.gathered(division, student) for peer in self.peers),
            mirrored=self.mirrored and self.mirrored.gathered(division, student),
            second=self.second and self.second.gathered(division, student),
            second_teacher=self.second_teacher and self.second_teacher.gathered(division, teacher),
        )
