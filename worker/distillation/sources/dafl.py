"""DAFL: images without data, from a generator that pleases the teacher.

Chen et al., "Data-Free Learning of Student Networks", ICCV 2019, arXiv:1904.01186; the fast preset adds a pool of
images, affine views of them, and an adversarial term after Fang et al., arXiv:1912.11006.
"""

from collections.abc import Mapping
from copy import deepcopy
from dataclasses import dataclass
from typing import Annotated, Any, Literal

import torch
from torch import Tensor, nn

from worker.distillation.parameters import Range
from worker.distillation.randomness import seed_for
from worker.distillation.source import Position, Source, SourceContext, SourceNeeds
from worker.distillation.step import Batch, Outputs
from worker.distillation.synthesis import generator
from worker.distillation.synthesis.augmentation import random_affine
from worker.distillation.synthesis.pool import pool_within
from worker.distillation.synthesis.precision import Precision, resolve
from worker.distillation.synthesis.training import GeneratorTraining, Weights

PRESETS: dict[str, dict[str, Any]] = {
    "fast": {
        "generator_resolution": "half", "generator_width": 32, "generator_batch": 256, "adversarial_weight": 2.0,
        "generator_warm_up_steps": 20, "student_steps_per_generator_step": 8, "pool_images": 32_768,
        "augmentation_probability": 0.5,
    },
    "paper": {
        "generator_resolution": "full", "generator_width": 128, "generator_batch": 512, "adversarial_weight": 0.0,
        "generator_warm_up_steps": 0, "student_steps_per_generator_step": 1, "pool_images": 0,
        "augmentation_probability": 0.0,
    },
}  # fmt: skip
STEPS_PER_EPOCH = 120  # as published
PREVIEWS = 64


class Dafl(Source):
    """Trains a generator against the frozen teacher, pools its images, and draws the students' batches from the pool."""

    paper = "arXiv:1904.01186"
    needs = SourceNeeds(teacher=True, teacher_gradient=True)
    synthesises = True
    training_defaults = {
        "steps": 2_400, "batch_size": 256, "optimizer": "adam", "learning_rate": 4e-3, "weight_decay": 0.0,
        "schedule": "cosine", "final_learning_rate_fraction": 0.005, "warm_up_steps": 100,
    }  # fmt: skip
    objective_defaults = (
        {"name": "kd", "weight": 1.0, "temperature": 4.0},
        {"name": "kd", "weight": 1.0, "temperature": 1.0},
    )

    @dataclass(frozen=True)
    class Parameters:
        # fmt: off
        preset: Annotated[Literal["fast", "paper"], "Chooses whatever is null: a cheap recipe, or the published one for MNIST."] = "fast"
        generator_resolution: Annotated[Literal["half", "full"] | None, "Where the last upsampling is: at the end (half, fast) or before the last convolutions (full, paper)."] = None
        generator_width: Annotated[int | None, Range(ge=2, le=1024), "Channels: 32 (fast) or 128 (paper)."] = None
        latent: Annotated[int, Range(ge=1, le=4096), "Size of the generator's noise; published: 100 for MNIST, 1000 for CIFAR."] = 100
        generator_batch: Annotated[int | None, Range(ge=2, le=8192), "Images a generator step: 256 (fast) or 512 (paper), or 10 a class up to 1024 if that is more."] = None
        generator_learning_rate: Annotated[float, Range(gt=0), "Of Adam; published: 0.2 for MNIST, 0.02 for CIFAR."] = 0.2
        one_hot_weight: Annotated[float, Range(ge=0), "Of the one-hot loss; published: 1 for MNIST, 0.05 for CIFAR-10."] = 1.0
        entropy_weight: Annotated[float, Range(ge=0), "Of the information-entropy loss (decimal logarithm)."] = 5.0
        activation_weight: Annotated[float, Range(ge=0), "Of the activation loss; published: 0.1 for MNIST, 0.01 for CIFAR-10."] = 0.1
        adversarial_weight: Annotated[float | None, Range(ge=0), "Of the students' disagreement with the teacher, relative to the size of its logits: 2 (fast) or 0 (paper)."] = None
        generator_warm_up_steps: Annotated[int | None, Range(ge=0), "Generator steps before the students' first, without the adversarial term: 20 (fast) or 0 (paper)."] = None
        student_steps_per_generator_step: Annotated[int | None, Range(ge=1), "8 (fast) or 1 (paper); the first sees the fresh images, the others draw from the pool."] = None
        pool_images: Annotated[int | None, Range(ge=0), "How many of the newest images to keep: 32768 (fast), or only the last generator batch (0, paper)."] = None
        pool_megabytes: Annotated[int, Range(ge=1), "Memory that the pool may take; it keeps fewer images where they are large."] = 1024
        augmentation_probability: Annotated[float | None, Range(ge=0, le=1), "Of a random affine view of a whole batch, labelled anew by the teacher: 0.5 (fast) or 0 (paper)."] = None
        precision: Annotated[Precision, "Of the generator's training; auto: bf16 where the hardware has it."] = "auto"
        # fmt: on

    def build(self, context: SourceContext) -> None:
        """Make the generator, its optimiser and an empty pool.

        Raises:
            SpecError: the pool's memory does not hold one generator batch, or the teacher has no classifier to tap.
        """
        super().build(context)
        assert context.teacher is not None
        chosen, device = self.parameters, context.device
        kind = resolve(chosen.precision, device)
        width, resolution = self._chosen("generator_width"), self._chosen("generator_resolution")
        network = generator.seeded(context.contract, chosen.latent, width, resolution, context.seed, device)
        adversarial = self._chosen("adversarial_weight")
        weights = Weights(chosen.one_hot_weight, chosen.entropy_weight, chosen.activation_weight, adversarial)
        self.training = GeneratorTraining(network, context.teacher, weights, chosen.generator_learning_rate, kind)
        self.random = torch.Generator().manual_seed(context.seed)
        self.generator_batch = chosen.generator_batch or max(
            self._chosen("generator_batch"), min(1024, 10 * context.classes)
        )
        self.steps_per_generator_step = self._chosen("student_steps_per_generator_step")
        self.augmentation_probability = self._chosen("augmentation_probability")
        images = max(self._chosen("pool_images"), self.generator_batch)
        bytes_limit = chosen.pool_megabytes * 2**20
        self.pool = pool_within(
            bytes_limit, images, self.generator_batch, context.contract, context.classes, kind, device
        )

    def generator_batch_for(self, classes: int) -> int:
        """Images a generator step; by default enough to tell whether the classes are in balance."""
        return self.parameters.generator_batch or max(self._chosen("generator_batch"), min(1024, 10 * classes))

    def steps_per_epoch(self) -> int:
        return STEPS_PER_EPOCH

    def warm_up_steps(self) -> int:
        return self._chosen("generator_warm_up_steps")

    def warm_up(self, number: int, students: Mapping[str, nn.Module]) -> None:
        self._generate({})

    def batch(self, position: Position, students: Mapping[str, nn.Module]) -> Batch:
        """Fresh images (`generator_batch` of them) after a generator step, else `batch_size` images from the pool."""
        if position.number % self.steps_per_generator_step == 0:
            self._generate(students)
            image, logits = self.pool.newest(self.generator_batch)
        else:
            image, logits = self.pool.draw(self.context.batch_size, self.random)
        if torch.rand((), generator=self.random).item() < self.augmentation_probability:
            return Batch(random_affine(image, self.random))
        return Batch(image, teacher=None if self.context.teacher_taps else Outputs(logits))

    def metrics(self) -> dict[str, Tensor | float]:
        return self.training.metrics() | {"generator/pool_images": float(len(self.pool))}

    def previews(self) -> dict[str, Tensor]:
        """The newest images."""
        return {"samples": self.pool.newest(PREVIEWS)[0]}

    def samples(self, count: int) -> Tensor:
        """Images that no student has seen, (count, C, H, W): from a copy of the generator and noise of their own."""
        random = torch.Generator().manual_seed(seed_for(self.context.seed, "samples"))
        noise = torch.randn(
            -(-count // self.generator_batch), self.generator_batch, self.parameters.latent, generator=random
        )
        copy = deepcopy(self.training.generator)
        with torch.no_grad():
            return torch.cat([copy(part.to(self.context.device)) for part in noise])[:count]

    def state_dict(self) -> dict[str, Any]:
        pool = {f"pool.{key}": part for key, part in self.pool.state_dict().items()}
        return self.training.state_dict() | {"random": self.random.get_state()} | pool

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        self.training.load_state_dict(state)
        self.random.set_state(state["random"].cpu())
        self.pool.load_state_dict({key.removeprefix("pool."): part for key, part in state.items()})

    def _chosen(self, name: str) -> Any:
        """A parameter, or the preset's where it is null."""
        value = getattr(self.parameters, name)
        return PRESETS[self.parameters.preset][name] if value is None else value

    def _generate(self, students: Mapping[str, nn.Module]) -> None:
        noise = torch.randn(self.generator_batch, self.parameters.latent, generator=self.random)
        image = self.training.step(noise, students).to(self.pool.dtype)
        self.pool.add(image, self.training.label(image.float()))
