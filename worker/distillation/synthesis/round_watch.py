"""Noticing that images which are made in rounds show few classes, or that the teacher answers them all alike.

Shapes: B batch, C channels, H height, W width, K classes.
"""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from worker.distillation.errors import Collapsed
from worker.distillation.synthesis.collapse import (
    LEAST_BALANCE,
    LEAST_DIVERSITY,
    LEAST_SPREAD,
    answered_alike,
    distance,
    spread,
)
from worker.distillation.synthesis.generator_losses import balance

POOR_ROUNDS, POOR_STEPS = 3, 100
"""How many rounds in a row, of how many steps together, may show too few classes."""
NAMES = ("class_balance", "diversity", "spread", "class_share")


class RoundWatch:
    """Follows four figures of finished rounds, of `iterations` steps each.

    `class_balance`, `diversity` and `spread` are those of `CollapseWatch`; `class_share`: in which part of the images the teacher
    sees the class that they are to show. `hint` says what to change where there are few classes.
    """

    def __init__(self, iterations: int, hint: str):
        self.iterations, self.hint = iterations, hint
        self.figures: Tensor | None = None
        self.first_diversity = 0.0
        self.poor = 0

    def see(self, round_: int, image_BCHW: Tensor, logits_BK: Tensor, target_B: Tensor) -> None:
        """Look at the images of a round, and what the teacher makes of them.

        Raises:
            Collapsed: for three rounds, and a hundred steps, it has seen few of the classes, or has answered them alike, or
                they were nearly one image.
        """
        share = (logits_BK.argmax(dim=1) == target_B).float().mean()
        self.figures = torch.stack([balance(logits_BK), distance(image_BCHW.float()), spread(logits_BK), share])
        least, diversity, apart, share_ = self.figures.tolist()
        self.first_diversity = self.first_diversity or diversity
        one_image = diversity <= LEAST_DIVERSITY * self.first_diversity
        self.poor = self.poor + 1 if one_image or least < LEAST_BALANCE or apart < LEAST_SPREAD else 0
        if self.poor < max(POOR_ROUNDS, POOR_STEPS / self.iterations):
            return
        words = f"the synthetic images had collapsed by round {round_}: for {self.poor} rounds"
        seen = f"(it sees the class that they are to show in {share_:.0%} of them)"
        if one_image:
            raise Collapsed(
                f"{words} all images of a round have been nearly one image, or showed few classes {seen}", self.hint
            )
        if apart < LEAST_SPREAD:
            raise answered_alike(f"{words} the teacher has answered all images alike {seen}")
        raise Collapsed(f"{words} the teacher has seen few of the classes in them {seen}", self.hint)

    def metrics(self) -> dict[str, Tensor]:
        """The last round's figures by name; none before the first has ended."""
        return {} if self.figures is None else dict(zip(NAMES, self.figures, strict=True))

    def state_dict(self) -> dict[str, Any]:
        return {"figures": self.figures, "poor": self.poor, "first_diversity": self.first_diversity}

    def load_state_dict(self, state: Mapping[str, Any], device: torch.device) -> None:
        self.poor, self.first_diversity = state["poor"], state["first_diversity"]
        self.figures = None if state["figures"] is None else state["figures"].clone().to(device)
