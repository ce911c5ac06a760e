"""Fast data-free distillation: a generator that learns to be adapted in a few steps."""

from collections.abc import Mapping
from copy import deepcopy
from dataclasses import dataclass
from typing import Annotated, Any, Literal

import torch
from torch import Tensor

from worker.distillation.parameters import Range
from worker.distillation.synthesis.batch_norm_statistics import BatchStatistics
from worker.distillation.synthesis.latents import BETAS, LatentParameters, LatentSource, load, state_of


class FastMeta(LatentSource):
    """Adapts a copy of a meta-generator, and what it reads, to each batch of images; a few steps are enough, since the
    meta-generator learns from every adaptation.

    Fang et al., "Up to 100x Faster Data-free Knowledge Distillation", arXiv:2112.15309. The weights are theirs for
    CIFAR-10, the preset `paper` that with 5 steps; their students take 400 steps to a round, by SGD from a rate of 0.2
    at temperature 20, 220 epochs of them. Not done here: to forget the meta-generator's first layer half-way.
    """

    paper = "arXiv:2112.15309"
    presets = {
        "fast": {
            "generator_resolution": "half", "generator_width": 32, "generator_batch": 256, "iterations": 5,
            "warm_up_rounds": 20, "student_steps_per_round": 12, "rounds": None, "pool_images": 32_768,
            "augmentation_probability": 0.5,
        },
        "paper": {
            "generator_resolution": "full", "generator_width": 128, "generator_batch": 256, "iterations": 5,
            "warm_up_rounds": 20, "student_steps_per_round": 400, "rounds": None, "pool_images": 65_536,
            "augmentation_probability": 0.5,
        },
    }  # fmt: skip

    @dataclass(frozen=True)
    class Parameters(LatentParameters):
        # fmt: off
        meta: Annotated[Literal["first_order", "reptile"], "What the meta-generator follows: the sum of the gradients of all steps (first-order MAML), or the way to the adapted copy."] = "first_order"
        generator_learning_rate: Annotated[float, Range(gt=0), "Of Adam on the adapted copy; the meta-generator's is `iterations` times that."] = 2e-3
        latent_learning_rate: Annotated[float, Range(gt=0), "Of Adam on what the generator reads; the default is ours."] = 1e-2
        statistics_momentum: Annotated[float, Range(ge=0, lt=1), "What the batches before a batch count in its statistics; published: 0.9."] = 0.9
        one_hot_weight: Annotated[float, Range(ge=0), "Of the cross-entropy with the classes that the images are to show; published: 0.4 to 0.5."] = 0.4
        boundary_weight: Annotated[float, Range(ge=0), "Of KL(teacher || student) on images where both see the same class, which the images raise; published: 1.1 to 1.33."] = 1.1
        # fmt: on

    def statistics(self) -> BatchStatistics:
        return BatchStatistics(momentum=self.settings.statistics_momentum)

    def prepare(self) -> None:
        chosen = self.settings
        self.generator = self.new_generator()
        self.copy, self.latent = deepcopy(self.generator), self.new_latent()
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
        """An inner step; the meta-generator's after the last one."""
        *gradients, self.latent.grad = torch.autograd.grad(loss, [*self.weights_of_copy, self.latent])
        for each, sum_, gradient in zip(self.weights_of_copy, self.sums, gradients, strict=True):
            each.grad = gradient
            sum_ += gradient
        self.optimizer.step()
        if step == self.iterations - 1:
            self._learn()
        self.optimizer.zero_grad(set_to_none=True)

    def fresh(self, count: int, random: torch.Generator) -> Tensor:
        """Of the meta-generator as it is, without adaptation."""
        meta, batches = deepcopy(self.generator), -(-count // self.generator_batch)
        with torch.no_grad():
            return torch.cat([meta(self.noise(self.generator_batch, random)) for _ in range(batches)])[:count]

    def state_dict(self) -> dict[str, Any]:
        return super().state_dict() | state_of(self._parts())

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        super().load_state_dict(state)
        load(self._parts(), state)

    def _learn(self) -> None:
        """The meta-generator's step."""
        for meta, copy, sum_ in zip(self.generator.parameters(), self.weights_of_copy, self.sums, strict=True):
            meta.grad = sum_.clone() if self.settings.meta == "first_order" else (meta - copy).detach()
        self.meta_optimizer.step()
        self.meta_optimizer.zero_grad(set_to_none=True)

    def _parts(self) -> dict[str, Any]:
        sums = {f"sum.{number:03}": each for number, each in enumerate(self.sums)}
        return {
            "generator": self.generator, "copy": self.copy, "latent": self.latent, "meta_optimizer": self.meta_optimizer,
        } | sums  # fmt: skip
