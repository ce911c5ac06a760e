"""What all synthesisers share: a pool of images and teacher's logits from which the students' batches are drawn."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Any, ClassVar, Literal

import torch
from torch import Tensor, nn

from worker.distillation.parameters import Range
from worker.distillation.precision import Precision, resolve
from worker.distillation.randomness import seed_for
from worker.distillation.source import (
    DATA_FREE_TRAINING,
    LABEL_FREE_OBJECTIVES,
    LabelsOf,
    Position,
    Source,
    SourceContext,
    SourceNeeds,
    chosen_of,
    taught,
)
from worker.distillation.step import Batch, Outputs
from worker.distillation.synthesis.augmentation import random_affine
from worker.distillation.synthesis.pool import pool_within

STEPS_PER_EPOCH = 120  # as published for DAFL
PREVIEWS = 64
MOST_IMAGES = 1024
IMAGES_A_CLASS = 10


@dataclass(frozen=True)
class PoolParameters:
    """Parameters of every pooled source; those that are null are set by the preset."""

    # fmt: off
    preset: Annotated[Literal["fast", "paper"], "Preset that sets the parameters that are null: a cheap recipe of ours (`fast`), or the published one"
" (`paper`)."] = "fast"
    generator_batch: Annotated[int | None, Range(ge=2, le=8192), "Number of images made at once. If null: the preset's, or 10 for each class up to 1024 if that is "
"more."] = None
    pool_images: Annotated[int | None, Range(ge=0), "Number of the newest images that the pool keeps; 0 keeps only the last batch. If null: the preset's."] = None
    pool_megabytes: Annotated[int, Range(ge=1), "Maximum memory of the pool in MiB. If the images need more, the pool keeps fewer."] = 1024
    augmentation_probability: Annotated[float | None, Range(ge=0, le=1), "Probability that a whole batch is replaced by random affine views of its images, which the teacher "
"labels anew. If null: the preset's."] = None
    labels: Annotated[LabelsOf, "Labels of the images. `teacher`: the teacher's predicted class; `none`: no labels."] = "none"
    precision: Annotated[Precision, "Precision of the synthesis. `auto`: bf16 if the hardware supports it."] = "auto"
    # fmt: on


class PooledSource(Source):
    """Stores its images with the teacher's logits, and returns batches of them, some as random affine views.

    `self.random` is the generator of all random draws; `self.pool` holds the images.
    """

    needs = SourceNeeds(teacher=True, teacher_gradient=True)
    when = {("labels", "teacher"): {"provides": ("label",)}}
    synthesises = True
    training_defaults = DATA_FREE_TRAINING
    sliced_training_defaults: ClassVar[Mapping[str, Any]] = {"relative_rates": "auto"}
    objective_defaults = LABEL_FREE_OBJECTIVES
    presets: ClassVar[Mapping[str, Mapping[str, Any]]]
    """Values of the parameters that are null, by the preset's name."""

    class Parameters(PoolParameters):
        """Parameters of every such source."""

    def build(self, context: SourceContext) -> None:
        """Make an empty pool, and the source's own parts.

        Raises:
            SpecError: the pool's memory does not hold one batch, or the teacher lacks what the source needs.
        """
        super().build(context)
        assert context.teacher is not None
        self.check_teacher(context.teacher, context.contract.blank(context.device))
        self.precision = resolve(self.settings.precision, context.device)
        self.random = torch.Generator().manual_seed(context.seed)
        self.generator_batch = self.generator_batch_for(context.classes)
        self.augmentation_probability = self.chosen("augmentation_probability")
        images = max(self.chosen("pool_images"), self.generator_batch)
        self.pool = pool_within(
            bytes_limit=self.settings.pool_megabytes * 2**20,
            images=images,
            least=self.generator_batch,
            contract=context.contract,
            classes=context.classes,
            dtype=self.precision,
            device=context.device,
        )

    @property
    def most_restarts(self) -> int:
        """The parameter `restarts`, or 0 for a source without it."""
        return getattr(self.settings, "restarts", 0)

    def chosen(self, name: str) -> Any:
        """The value of a parameter, or the preset's if it is null."""
        value = getattr(self.settings, name)
        return self.presets[self.settings.preset][name] if value is None else value

    def generator_batch_for(self, classes: int) -> int:
        """Number of images made at once; by default enough to measure whether the classes are balanced."""
        least = min(MOST_IMAGES, IMAGES_A_CLASS * classes)
        return self.settings.generator_batch or max(self.chosen("generator_batch"), least)

    def classes(self, random: torch.Generator) -> Tensor:
        """Target classes of images made at once (B,), in random order; all classes are equally frequent."""
        count = self.generator_batch
        return (torch.arange(count) % self.context.classes)[torch.randperm(count, generator=random)]

    def steps_per_epoch(self) -> int:
        return STEPS_PER_EPOCH

    def batch(self, position: Position, students: Mapping[str, nn.Module]) -> Batch:
        """Images with the teacher's logits, or views of them without logits, which the engine labels."""
        image, logits = self.images(position, students)
        labelled = self.settings.labels == "teacher"
        if torch.rand((), generator=self.random).item() < self.augmentation_probability:
            batch = Batch(random_affine(image, self.random))
            return taught(batch, self.context) if labelled else batch
        fields = {"label": chosen_of(logits, self.context.task)} if labelled else {}
        return Batch(image, fields, teacher=None if self.context.teacher_taps else Outputs(logits))

    def images(self, position: Position, students: Mapping[str, nn.Module]) -> tuple[Tensor, Tensor]:
        """The images (B, C, H, W) of this step's batch and the teacher's logits (B, K)."""
        return self.pool.draw(self.context.batch_size, self.random)

    def fresh(self, count: int, random: torch.Generator) -> Tensor:
        """New images (count, C, H, W), drawn with `random`; does not change the source's state."""
        raise NotImplementedError

    def metrics(self) -> dict[str, Tensor | float]:
        return {"generator/pool_images": float(len(self.pool))}

    def previews(self) -> dict[str, Tensor]:
        """The newest images."""
        return {"samples": self.pool.newest(PREVIEWS)[0]}

    def samples(self, count: int) -> Tensor:
        """Images that no student has seen, (count, C, H, W)."""
        return self.fresh(count, torch.Generator().manual_seed(seed_for(self.context.seed, "samples")))

    def calibration(self, count: int) -> Tensor:
        """Images of the pool, from the oldest to the newest; new ones while the pool is empty."""
        if not len(self.pool):
            return self.samples(count)
        return self.pool.read(torch.linspace(0, len(self.pool) - 1, min(count, len(self.pool))).round().long())[0]

    def state_dict(self) -> dict[str, Any]:
        pool = {f"pool.{key}": part for key, part in self.pool.state_dict().items()}
        return {"random": self.random.get_state()} | pool

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        self.random.set_state(state["random"].cpu())
        self.pool.load_state_dict({key.removeprefix("pool."): part for key, part in state.items()})
