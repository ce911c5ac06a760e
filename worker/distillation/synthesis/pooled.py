"""What all synthesisers share: a pool of labelled images that the students' batches are drawn from."""

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
    """Parameters of every pooled source; those that are null are the preset's."""

    # fmt: off
    preset: Annotated[Literal["fast", "paper"], "Chooses whatever is null: a cheap recipe of ours, or the published one."] = "fast"
    generator_batch: Annotated[int | None, Range(ge=2, le=8192), "Images made at once; if null the preset's, or 10 a class up to 1024 if that is more."] = None
    pool_images: Annotated[int | None, Range(ge=0), "How many of the newest images to keep; 0 for the last batch only."] = None
    pool_megabytes: Annotated[int, Range(ge=1), "Memory that the pool may take; it keeps fewer images where they are large."] = 1024
    augmentation_probability: Annotated[float | None, Range(ge=0, le=1), "Of a random affine view of a whole batch, labelled anew by the teacher."] = None
    labels: Annotated[LabelsOf, "`teacher`: the teacher's likeliest class is each image's label; `none`: there are no labels."] = "none"
    precision: Annotated[Precision, "Of the images' making; auto: bf16 where the hardware has it."] = "auto"
    # fmt: on


class PooledSource(Source):
    """Keeps its images with the teacher's logits, and gives batches of them, some in a random affine view.

    `self.random` is the generator of everything that is drawn; `self.pool` holds the images.
    """

    needs = SourceNeeds(teacher=True, teacher_gradient=True)
    when = {("labels", "teacher"): {"provides": ("label",)}}
    synthesises = True
    training_defaults = DATA_FREE_TRAINING
    objective_defaults = LABEL_FREE_OBJECTIVES
    presets: ClassVar[Mapping[str, Mapping[str, Any]]]
    """What the parameters that are null are, by the preset's name."""

    class Parameters(PoolParameters):
        """Those of every such source."""

    def build(self, context: SourceContext) -> None:
        """Make an empty pool, and the source's own parts.

        Raises:
            SpecError: the pool's memory does not hold one batch, or the teacher lacks what the source needs of it.
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
        """What the parameter `restarts` says, of a source that has it."""
        return getattr(self.settings, "restarts", 0)

    def chosen(self, name: str) -> Any:
        """A parameter, or the preset's where it is null."""
        value = getattr(self.settings, name)
        return self.presets[self.settings.preset][name] if value is None else value

    def generator_batch_for(self, classes: int) -> int:
        """Images made at once; by default enough to tell whether the classes are in balance."""
        least = min(MOST_IMAGES, IMAGES_A_CLASS * classes)
        return self.settings.generator_batch or max(self.chosen("generator_batch"), least)

    def classes(self, random: torch.Generator) -> Tensor:
        """What images made at once are to show (B,): every class as often as any other, in random order."""
        count = self.generator_batch
        return (torch.arange(count) % self.context.classes)[torch.randperm(count, generator=random)]

    def steps_per_epoch(self) -> int:
        return STEPS_PER_EPOCH

    def batch(self, position: Position, students: Mapping[str, nn.Module]) -> Batch:
        """Images with the teacher's logits, or views of them that the engine has to label."""
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
        """New images (count, C, H, W) that leave no trace in the source, drawn with `random`."""
        raise NotImplementedError

    def metrics(self) -> dict[str, Tensor | float]:
        return {"generator/pool_images": float(len(self.pool))}

    def previews(self) -> dict[str, Tensor]:
        """The newest images."""
        return {"samples": self.pool.newest(PREVIEWS)[0]}

    def samples(self, count: int) -> Tensor:
        """Images that no student has seen, (count, C, H, W)."""
        return self.fresh(count, torch.Generator().manual_seed(seed_for(self.context.seed, "samples")))

    def state_dict(self) -> dict[str, Any]:
        pool = {f"pool.{key}": part for key, part in self.pool.state_dict().items()}
        return {"random": self.random.get_state()} | pool

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        self.random.set_state(state["random"].cpu())
        self.pool.load_state_dict({key.removeprefix("pool."): part for key, part in state.items()})
