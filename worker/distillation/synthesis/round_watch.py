"""Detection of collapse in images that are made in rounds: few classes, nearly identical images, or identical teacher
outputs.

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
    distance,
    same_outputs,
    spread,
)
from worker.distillation.synthesis.generator_losses import balance

POOR_ROUNDS, POOR_STEPS = 3, 100
"""Minimum number of collapsed rounds in a row, and of their steps together, that raise an error."""
NAMES = ("class_balance", "diversity", "spread", "class_share")


class RoundWatch:
    """Computes four metrics of each finished round of `iterations` steps.

    `class_balance`, `diversity` and `spread` are those of `CollapseWatch`; `class_share` is the share of images for
    which the teacher predicts the target class. `hint` says what to change if there are few classes.
    """

    def __init__(self, iterations: int, hint: str):
        self.iterations = iterations
        self.hint = hint
        self.measured: Tensor | None = None
        self.first_diversity = 0.0
        self.poor = 0

    def see(self, round_: int, image_BCHW: Tensor, logits_BK: Tensor, target_B: Tensor) -> None:
        """Add the images of a round and the teacher's logits for them.

        Raises:
            Collapsed: for three rounds and at least a hundred steps, the teacher predicted few of the classes, or its outputs
                were the same for all images, or the images were nearly identical.
        """
        share = (logits_BK.argmax(dim=1) == target_B).float().mean()
        self.measured = torch.stack([balance(logits_BK), distance(image_BCHW.float()), spread(logits_BK), share])
        least, diversity, apart, share_ = self.measured.tolist()
        self.first_diversity = self.first_diversity or diversity
        one_image = diversity <= LEAST_DIVERSITY * self.first_diversity
        self.poor = self.poor + 1 if one_image or least < LEAST_BALANCE or apart < LEAST_SPREAD else 0
        if self.poor < max(POOR_ROUNDS, POOR_STEPS / self.iterations):
            return
        words = f"the synthetic images had collapsed by round {round_}: for {self.poor} rounds"
        seen = f"(it predicts the target class for {share_:.0%} of them)"
        if one_image:
            raise Collapsed(
                f"{words} all images of a round were nearly identical, or the teacher predicted few classes for them "
                f"{seen}",
                self.hint,
            )
        if apart < LEAST_SPREAD:
            raise same_outputs(f"{words} the teacher's outputs were the same for all images {seen}")
        raise Collapsed(f"{words} the teacher predicted few of the classes for them {seen}", self.hint)

    def metrics(self) -> dict[str, Tensor]:
        """The last round's metrics by name; empty before the end of the first round."""
        return {} if self.measured is None else dict(zip(NAMES, self.measured, strict=True))

    def state_dict(self) -> dict[str, Any]:
        return {"measured": self.measured, "poor": self.poor, "first_diversity": self.first_diversity}

    def load_state_dict(self, state: Mapping[str, Any], device: torch.device) -> None:
        self.poor, self.first_diversity = state["poor"], state["first_diversity"]
        self.measured = None if state["measured"] is None else state["measured"].clone().to(device)
