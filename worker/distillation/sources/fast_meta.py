"""Fast data-free distillation: a meta-generator that adapts in a few steps."""

from collections.abc import Mapping
from copy import deepcopy
from dataclasses import dataclass
from typing import Annotated, Any, Literal

import torch
from torch import Tensor

from worker.distillation.parameters import Range
from worker.distillation.synthesis.batch_norm_statistics import BatchStatistics
from worker.distillation.synthesis.latents import BETAS, GeneratorParameters, LatentSource, load, state_of


class FastMeta(LatentSource):
    """Adapts a copy of a meta-generator, and its latents, to each batch of images; a few steps suffice, because the
    meta-generator learns from every adaptation.

    Fang et al., "Up to 100x Faster Data-free Knowledge Distillation", arXiv:2112.15309. The weights are the authors'
    for CIFAR-10, and the preset `paper` is theirs with 5 steps. Their students take 400 steps a round, by SGD with a
    learning rate of 0.2 at temperature 20, for 220 epochs. Not implemented: resetting the meta-generator's first layer
    half-way.
    """

    paper = "arXiv:2112.15309"
    presets = {
        "fast": {
            "generator_resolution": "half", "generator_width": 32, "generator_output": "contract", "generator_batch": 256,
            "iterations": 5, "initial_rounds": 20, "student_steps_per_round": 12, "rounds": None, "pool_images": 32_768,
            "augmentation_probability": 0.5, "latent": 256,
        },
        "paper": {
            "generator_resolution": "full", "generator_width": 128, "generator_output": "sigmoid", "generator_batch": 256,
            "iterations": 5, "initial_rounds": 20, "student_steps_per_round": 400, "rounds": None, "pool_images": 65_536,
            "augmentation_probability": 0.5, "latent": 256,
        },
    }  # fmt: skip

    @dataclass(frozen=True)
    class Parameters(GeneratorParameters):
        # fmt: off
        meta: Annotated[Literal["first_order", "reptile"], "Update of the meta-generator: the sum of the gradients of all steps (`first_order`, first-order "
"MAML), or the difference to the adapted copy (`reptile`)."] = "first_order"
        generator_learning_rate: Annotated[float, Range(gt=0), "Learning rate of Adam for the adapted copy. That of the meta-generator is `iterations` times this."] = 2e-3
        latent_learning_rate: Annotated[float, Range(gt=0), "Learning rate of Adam for the latents. The default is ours."] = 1e-2
        statistics_momentum: Annotated[float, Range(ge=0, lt=1), "Weight of earlier batches in the batch statistics; published: 0.9."] = 0.9
        one_hot_weight: Annotated[float, Range(ge=0), "Weight of the cross-entropy with the target classes; published: 0.4 to 0.5."] = 0.4
        boundary_weight: Annotated[float, Range(ge=0), "Weight of KL(teacher || student) on images for which both predict the same class, which the images "
"maximise; published: 1.1 to 1.33."] = 1.1
        # fmt: on

    def statistics(self) -> BatchStatistics:
        return BatchStatistics(momentum=self.settings.statistics_momentum)

    def prepare(self) -> None:
        chosen = self.settings
        self.generator = self.new_generator()
        self.copy = deepcopy(self.generator)
        self.latent = self.new_latent()
        self.weights_of_copy = list(self.copy.parameters())
        groups: list[dict[str, Any]] = [
            {"params": self.weights_of_copy},
            {"params": [self.latent], "lr": chosen.latent_learning_rate},
        ]
        self.optimizer = torch.optim.Adam(groups, chosen.generator_learning_rate, BETAS)
        rate = chosen.generator_learning_rate * self.iterations
        self.meta_optimizer = torch.optim.Adam(self.generator.parameters(), rate, BETAS)
        self.sums = [torch.zeros_like(each) for each in self.weights_of_copy]

    @torch.no_grad()
    def begin(self, number: int) -> None:
        self.copy.load_state_dict(self.generator.state_dict())
        self.latent.copy_(self.noise(self.generator_batch, self.random))
        self.optimizer.state.clear()
        for each in self.sums:
            each.zero_()

    def made(self) -> Tensor:
        return self.copy(self.latent)

    def descend(self, loss: Tensor, step: int) -> None:
        """One inner step; after the last one, also the meta-generator's step."""
        *gradients, self.latent.grad = torch.autograd.grad(loss, [*self.weights_of_copy, self.latent])
        for each, sum_, gradient in zip(self.weights_of_copy, self.sums, gradients, strict=True):
            each.grad = gradient
            sum_ += gradient
        self.optimizer.step()
        if step == self.iterations - 1:
            self._learn()
        self.optimizer.zero_grad(set_to_none=True)

    def fresh(self, count: int, random: torch.Generator) -> Tensor:
        """Images of the meta-generator itself, without adaptation."""
        meta, batches = deepcopy(self.generator), -(-count // self.generator_batch)
        with torch.no_grad():
            return torch.cat([meta(self.noise(self.generator_batch, random)) for _ in range(batches)])[:count]

    def state_dict(self) -> dict[str, Any]:
        return super().state_dict() | state_of(self._parts())

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        super().load_state_dict(state)
        load(self._parts(), state)

    def _learn(self) -> None:
        """One step of the meta-generator."""
        for meta, copy, sum_ in zip(self.generator.parameters(), self.weights_of_copy, self.sums, strict=True):
            meta.grad = sum_.clone() if self.settings.meta == "first_order" else (meta - copy).detach()
        self.meta_optimizer.step()
        self.meta_optimizer.zero_grad(set_to_none=True)

    def _parts(self) -> dict[str, Any]:
        sums = {f"sum.{number:03}": each for number, each in enumerate(self.sums)}
        return {
            "generator": self.generator, "copy": self.copy, "latent": self.latent, "meta_optimizer": self.meta_optimizer,
        } | sums  # fmt: skip
