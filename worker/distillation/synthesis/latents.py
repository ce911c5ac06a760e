"""Round sources whose images come from a generator."""

from dataclasses import dataclass
from typing import Annotated, Any

import torch
from torch import Tensor, nn

from worker.distillation.data.transfers import sent
from worker.distillation.parameters import Range
from worker.distillation.randomness import seed_for
from worker.distillation.synthesis import generator
from worker.distillation.synthesis.generator import OUTPUT_WORDS, Output, Resolution
from worker.distillation.synthesis.image_loss import Weights
from worker.distillation.synthesis.rounds import RoundParameters, RoundSource

BETAS = (0.5, 0.999)
"""Betas of the authors' Adam, for CMI and its successors."""


@dataclass(frozen=True)
class LatentParameters(RoundParameters):
    """Parameters of every such source."""

    # fmt: off
    latent: Annotated[int | None, Range(ge=1, le=4096), "Dimension of the generator's input. If null: the preset's."] = None
    generator_output: Annotated[Output | None, OUTPUT_WORDS] = None
    generator_learning_rate: Annotated[float, Range(gt=0), "Learning rate of Adam for the generator's weights."] = 1e-3
    boundary_weight: Annotated[float, Range(ge=0), "Weight of KL(teacher || student) on images for which both predict the same class, which the images "
"maximise."] = 0.5
    # fmt: on


@dataclass(frozen=True)
class GeneratorParameters(LatentParameters):
    """Parameters of every such source whose generator is that of DAFL."""

    # fmt: off
    generator_resolution: Annotated[Resolution | None, "Position of the last upsampling: at the end (half, fast) or before the last convolutions (full, "
"paper). If null: the preset's."] = None
    generator_width: Annotated[int | None, Range(ge=2, le=1024), "Number of channels of the generator. If null: the preset's."] = None
    # fmt: on


class LatentSource(RoundSource):
    """Has a generator in the teacher's input space, whose inner normalisations have torch's default epsilon."""

    class Parameters(GeneratorParameters):
        """Parameters of every such source."""

    def weights(self) -> Weights:
        chosen = self.settings
        return Weights(
            one_hot=chosen.one_hot_weight, boundary=chosen.boundary_weight, batch_statistics=chosen.statistics_weight
        )

    def new_generator(self, *of: int | str) -> nn.Module:
        """A generator whose weights depend on the seed and on `of`."""
        return generator.seeded(
            self.context.contract,
            latent=self.chosen("latent"),
            width=self.chosen("generator_width"),
            resolution=self.chosen("generator_resolution"),
            seed=seed_for(self.context.seed, "generator", *of),
            device=self.context.device,
            epsilon=1e-5,
            output=self.chosen("generator_output"),
        )

    def noise(self, count: int, random: torch.Generator) -> Tensor:
        """Independent normal numbers (count, Z)."""
        return sent(torch.randn(count, self.chosen("latent"), generator=random), self.context.device)

    def new_latent(self) -> nn.Parameter:
        """A tensor for the generator's inputs (B, Z), optimised together with the generator."""
        return nn.Parameter(torch.zeros(self.generator_batch, self.chosen("latent"), device=self.context.device))


def state_of(parts: dict[str, Any]) -> dict[str, Any]:
    """State of modules and optimisers, and tensors, by name."""
    return {name: part.detach() if isinstance(part, Tensor) else part.state_dict() for name, part in parts.items()}


@torch.no_grad()
def load(parts: dict[str, Any], state: Any) -> None:
    """Restore what `state_of` returned."""
    for name, part in parts.items():
        if isinstance(part, Tensor):
            part.copy_(state[name])
        else:
            part.load_state_dict(state[name])
