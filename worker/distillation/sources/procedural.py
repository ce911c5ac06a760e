"""Procedural images, pushed by the teacher: images without data and without a generator."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Any, Literal

import torch
from torch import Tensor, nn

from worker.distillation.data.samplers import generator
from worker.distillation.parameters import Range
from worker.distillation.source import DATA_FREE_TRAINING, SourceContext
from worker.distillation.synthesis.pooled import PooledSource, PoolParameters
from worker.distillation.synthesis.procedural_images import FAMILY_IMAGES, ProceduralImages, Refinement

PREVIEWS_A_FAMILY = 8


class Procedural(PooledSource):
    """Draws strokes, noise, shapes, dead leaves and mixtures of them, and pushes most of them towards classes of the teacher.

    A family's share of the images is the larger, the more evenly the teacher's predictions for it are spread over the
    classes and the more its logits vary. Images stay within the range of pixels. New ones are added to the pool between the
    students' steps. The recipe is ours; images that are drawn by formulas as training data are those of Baradad et al.,
    arXiv:2106.05963.
    """

    paper = "arXiv:2106.05963"
    training_defaults = {**DATA_FREE_TRAINING, "learning_rate": 2e-3}
    sliced_training_defaults = {"relative_rates": "on"}
    presets = {"fast": {"generator_batch": 256, "pool_images": 32_768, "augmentation_probability": 0.5}}

    @dataclass(frozen=True)
    class Parameters(PoolParameters):
        # fmt: off
        preset: Annotated[Literal["fast"], "Preset that sets the parameters that are null."] = "fast"
        first_batches: Annotated[int, Range(ge=1, le=10_000), "Number of batches of images before the students' first step."] = 8
        student_steps_per_batch: Annotated[int, Range(ge=1), "Number of student steps between two new batches of images."] = 8
        family_images: Annotated[int, Range(ge=16, le=65_536), "Number of images of each family by which its share is measured."] = FAMILY_IMAGES
        refined_fraction: Annotated[float, Range(ge=0, le=1), "Fraction of the images that are pushed towards a random class of the teacher."] = Refinement.fraction
        refinement_steps: Annotated[int, Range(ge=1, le=1000), "Number of gradient steps of such an image."] = Refinement.steps
        refinement_move: Annotated[float, Range(gt=0, le=1), "Largest root mean square change of such an image in all, relative to the range of pixels."] = Refinement.move
        statistics_weight: Annotated[float, Range(ge=0), "Length of the step of such an image towards the teacher's BatchNorm statistics, relative to that towards its class. Without effect on teachers without such layers."] = 1.0
        # fmt: on

    def build(self, context: SourceContext) -> None:
        super().build(context)
        teacher = context.teacher
        assert teacher is not None
        self.procedural = ProceduralImages(
            lambda x: teacher(x).logits, context.contract, context.classes, context.device
        )
        self.refinement = Refinement(
            self.settings.refined_fraction,
            self.settings.refinement_steps,
            self.settings.refinement_move,
            self.settings.statistics_weight,
        )
        draw = generator(context.seed, "families")
        self.shares = self.procedural.weights(self.settings.family_images, draw)

    def generator_steps(self, number: int) -> int:
        return self.settings.first_batches + number // self.settings.student_steps_per_batch

    def generator_step(self, number: int, students: Mapping[str, nn.Module]) -> None:
        image = self.fresh(self.generator_batch, self.random).to(self.pool.dtype)
        self.pool.add(image, self._logits(image.float()))

    def fresh(self, count: int, random: torch.Generator) -> Tensor:
        return self.procedural.mixed(count, self.shares, self.refinement, random)

    def metrics(self) -> dict[str, Tensor | float]:
        shares = zip(self.procedural.kinds, self.shares.tolist(), strict=True)
        return {f"generator/share_{kind}": share for kind, share in shares} | super().metrics()

    def previews(self) -> dict[str, Tensor]:
        """The newest images, and images of each family as they are drawn."""
        draw = generator(self.context.seed, "previews")
        drawn = [self.procedural.draw(kind, PREVIEWS_A_FAMILY, draw) for kind in self.procedural.kinds]
        return super().previews() | {"families": torch.cat(drawn)}

    def state_dict(self) -> dict[str, Any]:
        return {"shares": self.shares} | super().state_dict()

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        self.shares = state["shares"].clone()
        super().load_state_dict(state)

    @torch.no_grad()
    def _logits(self, image: Tensor) -> Tensor:
        assert self.context.teacher is not None
        return self.context.teacher(image).logits.float()
