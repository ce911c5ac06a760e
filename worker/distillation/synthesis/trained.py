"""Sources with one generator that takes a step at a fixed interval of student steps."""

from collections.abc import Mapping
from copy import deepcopy
from dataclasses import dataclass
from typing import Annotated, Any, Literal

import torch
from torch import Tensor, nn

from worker.distillation.parameters import Range
from worker.distillation.source import Position, SourceContext
from worker.distillation.synthesis import generator
from worker.distillation.synthesis.collapse import corrected
from worker.distillation.synthesis.generator import OUTPUT_WORDS, Output, Resolution
from worker.distillation.synthesis.generator_training import GeneratorTraining
from worker.distillation.synthesis.image_loss import ImageLoss, Weights
from worker.distillation.synthesis.mixed_pool import MixedPoolParameters, MixedPoolSource

FAST: Mapping[str, Any] = {
    "generator_resolution": "half", "generator_width": 32, "generator_output": "contract", "generator_batch": 256,
    "student_steps_per_generator_step": 8, "student_images": "pool",
    "pool_images": 32_768, "augmentation_probability": 0.5,
}  # fmt: skip
"""Values shared by the presets `fast`; ours."""


@dataclass(frozen=True)
class GeneratorParameters(MixedPoolParameters):
    """Parameters of every source with such a generator."""

    # fmt: off
    generator_resolution: Annotated[Resolution | None, "Position of the last upsampling: at the end (half, fast) or before the last convolutions (full, "
"paper). If null: the preset's."] = None
    generator_width: Annotated[int | None, Range(ge=2, le=1024), "Number of channels of the generator. If null: 32 (fast) or 128 (paper)."] = None
    generator_output: Annotated[Output | None, OUTPUT_WORDS] = None
    latent: Annotated[int, Range(ge=1, le=4096), "Dimension of the generator's noise."] = 100
    generator_learning_rate: Annotated[float, Range(gt=0), "Learning rate of the generator's Adam."] = 1e-3
    initial_generator_steps: Annotated[int | None, Range(ge=0), "Number of generator steps before the students' first step, without the terms that read the students."
" If null: the preset's."] = None
    student_steps_per_generator_step: Annotated[int | None, Range(ge=1), "Number of student steps for each generator step. The first uses the generator's new images, the "
"others those set by `student_images`. If null: the preset's."] = None
    restarts: Annotated[int, Range(ge=0, le=10), "Maximum number of restarts of a stage whose images collapse. Each restart doubles the weight of the "
"information entropy and halves those of the terms against the students. The default is ours."] = 2
    student_images: Annotated[Literal["pool", "fresh", "repeat"] | None, "Images for student steps without a generator step: draws from the pool, images of new noise "
"(`fresh`), or the last images again (`repeat`). If null: the preset's."] = None
    # fmt: on


class TrainedSource(MixedPoolSource):
    """Trains a generator against the frozen teacher (and the live students), and pools its images.

    Students that a term reads are in eval mode meanwhile; public code of ZSKT, DFAD and DFQ leaves them in train mode.
    """

    epsilon = 1e-5
    """Epsilon of the generator's inner normalisations."""
    gradient_norm: float | None = None
    """Maximum norm of the gradient of the generator's loss."""

    class Parameters(GeneratorParameters):
        """Parameters of every such source."""

    def weights(self) -> Weights:
        """Weights of the terms of the generator's loss."""
        raise NotImplementedError

    def betas(self) -> tuple[float, float]:
        """Betas of the generator's Adam."""
        return 0.9, 0.999

    def draws_in_evaluation(self) -> bool:
        """Whether images between the generator's steps are made in evaluation mode."""
        return False

    def build(self, context: SourceContext) -> None:
        super().build(context)
        assert context.teacher is not None
        network = generator.seeded(
            context.contract,
            latent=self.chosen("latent"),
            width=self.chosen("generator_width"),
            resolution=self.chosen("generator_resolution"),
            seed=context.seed,
            device=context.device,
            epsilon=self.epsilon,
            output=self.chosen("generator_output"),
        )
        weights = corrected(self.weights(), context.restarts)
        independent = context.task == "multi_label"
        image_loss = ImageLoss(context.teacher, weights, self.precision, context.device, independent=independent)
        self.training = GeneratorTraining(
            network,
            image_loss,
            self.chosen("generator_learning_rate"),
            self.betas(),
            self.gradient_norm,
            self.draws_in_evaluation(),
        )
        self.steps_per_generator_step = self.chosen("student_steps_per_generator_step")
        self.student_images = self.chosen("student_images")

    def generator_steps(self, number: int) -> int:
        return self.chosen("initial_generator_steps")

    def generator_step(self, number: int, students: Mapping[str, nn.Module]) -> None:
        self._train({})

    def images(self, position: Position, students: Mapping[str, nn.Module]) -> tuple[Tensor, Tensor]:
        """The images of this step's batch, and the teacher's logits for them.

        At a generator step: that step's `generator_batch` images, from before its update with `student_images="pool"`,
        else from after it. Otherwise: `batch_size` images from the pool, or `generator_batch` fresh or repeated ones.
        """
        if position.number % self.steps_per_generator_step == 0:
            self._train(students)
        elif self.student_images == "pool":
            return self.pool.draw(self.context.batch_size, self.random)
        elif self.student_images == "fresh":
            self._keep(self.training.images(self._noise(self.random)))
        return self.pool.newest(self.generator_batch)

    def fresh(self, count: int, random: torch.Generator) -> Tensor:
        copy, batches = deepcopy(self.training.generator), -(-count // self.generator_batch)
        noise = torch.randn(batches, self.generator_batch, self.chosen("latent"), generator=random)
        with torch.no_grad():
            return torch.cat([copy(part.to(self.context.device)) for part in noise])[:count]

    def metrics(self) -> dict[str, Tensor | float]:
        restarts = {"generator/restarts": float(self.context.restarts)}
        return self.training.metrics() | restarts | super().metrics()

    def warnings(self) -> tuple[str, ...]:
        warning = self.training.watch.warning
        return (warning,) if warning else ()

    def state_dict(self) -> dict[str, Any]:
        return self.training.state_dict() | super().state_dict()

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        self.training.load_state_dict(state)
        super().load_state_dict(state)

    def _noise(self, random: torch.Generator) -> Tensor:
        return torch.randn(self.generator_batch, self.chosen("latent"), generator=random)

    def _train(self, students: Mapping[str, nn.Module]) -> None:
        """One generator step. Keeps its images, or with `student_images` other than `pool`, as published, images
        made after it."""
        noise = self._noise(self.random)
        image = self.training.step(noise, students)
        if self.student_images != "pool":
            image = self.training.images(noise if self.student_images == "repeat" else self._noise(self.random))
        self._keep(image)

    def _keep(self, image_BCHW: Tensor) -> None:
        image = image_BCHW.to(self.pool.dtype)
        self.add(image, self.training.image_loss.label(image.float()))
