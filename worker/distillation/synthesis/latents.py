"""Sources in rounds whose images come from a generator."""

from dataclasses import dataclass
from typing import Annotated, Any

import torch
from torch import Tensor, nn

from worker.distillation.parameters import Range
from worker.distillation.randomness import seed_for
from worker.distillation.synthesis import generator
from worker.distillation.synthesis.generator import Generator, Resolution
from worker.distillation.synthesis.image_loss import Weights
from worker.distillation.synthesis.rounds import RoundParameters, RoundSource

BETAS = (0.5, 0.999)
"""Of the authors' Adam, for CMI and what follows it."""


@dataclass(frozen=True)
class LatentParameters(RoundParameters):
    """Parameters of every such source."""

    # fmt: off
    generator_resolution: Annotated[Resolution | None, "Where the last upsampling is: at the end (half, fast) or before the last convolutions (full, paper)."] = None
    generator_width: Annotated[int | None, Range(ge=2, le=1024), "Channels of the generator."] = None
    latent: Annotated[int, Range(ge=1, le=4096), "Size of what the generator reads."] = 256
    generator_learning_rate: Annotated[float, Range(gt=0), "Of Adam on the generator's weights."] = 1e-3
    boundary_weight: Annotated[float, Range(ge=0), "Of KL(teacher || student) on images where both see the same class, which the images raise."] = 0.5
    # fmt: on


class LatentSource(RoundSource):
    """Has a generator in the teacher's input space, whose inner normalisations have torch's epsilon."""

    class Parameters(LatentParameters):
        """Those of every such source."""

    def weights(self) -> Weights:
        chosen = self.settings
        return Weights(
            one_hot=chosen.one_hot_weight, boundary=chosen.boundary_weight, batch_statistics=chosen.statistics_weight
        )

    def new_generator(self, *of: int | str) -> Generator:
        """A generator whose weights depend on the seed and on `of`."""
        return generator.seeded(
            self.context.contract,
            latent=self.settings.latent,
            width=self.chosen("generator_width"),
            resolution=self.chosen("generator_resolution"),
            seed=seed_for(self.context.seed, "generator", *of),
            device=self.context.device,
            epsilon=1e-5,
        )

    def noise(self, count: int, random: torch.Generator) -> Tensor:
        """Independent normal numbers (count, Z)."""
        return torch.randn(count, self.settings.latent, generator=random).to(self.context.device)

    def new_latent(self) -> nn.Parameter:
        """Room for what the generator reads (B, Z), to be optimised with it."""
        return nn.Parameter(torch.zeros(self.generator_batch, self.settings.latent, device=self.context.device))


def state_of(parts: dict[str, Any]) -> dict[str, Any]:
    """State of modules and optimisers, and tensors as they are, by name."""
    return {name: part.detach() if isinstance(part, Tensor) else part.state_dict() for name, part in parts.items()}


@torch.no_grad()
def load(parts: dict[str, Any], state: Any) -> None:
    """Undo `state_of`."""
    for name, part in parts.items():
        if isinstance(part, Tensor):
            part.copy_(state[name])
        else:
            part.load_state_dict(state[name])
