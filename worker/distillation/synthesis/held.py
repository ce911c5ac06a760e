"""Round sources without a persistent generator: the first round is withheld from the students, to score them."""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from worker.distillation.synthesis.rounds import RoundSource


class HeldOutSource(RoundSource):
    """Withholds the images of the first round from the students."""

    held: Tensor | None = None

    def generator_steps(self, number: int) -> int:
        return self.chosen("iterations") + super().generator_steps(number)

    def keep(self, round_: int, image: Tensor, logits: Tensor) -> None:
        if round_ == 0:
            self.held = image.float()
        else:
            super().keep(round_, image, logits)

    def fresh(self, count: int, random: torch.Generator) -> Tensor:
        """The withheld images, at most as many as a round has."""
        assert self.held is not None
        return self.held[:count]

    def state_dict(self) -> dict[str, Any]:
        return super().state_dict() | ({} if self.held is None else {"held": self.held})

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        super().load_state_dict(state)
        self.held = state["held"].clone().to(self.context.device) if "held" in state else None
