"""Noticing that a generator makes only one kind of picture, or none at all.

Shapes: B batch, K classes.
"""

import math
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from worker.distillation.errors import Collapsed, Diverged
from worker.distillation.synthesis.losses import information_entropy

LEAST = 0.5
"""Of log K: the entropy of the mean prediction under which a batch counts as collapsed."""
PATIENCE = 50
"""Batches in a row."""
LOOK_EVERY = 10
"""Batches between two looks; a look waits for the device."""


class CollapseWatch:
    """Follows the entropy of the teacher's mean prediction on synthetic batches, as a fraction of log K."""

    def __init__(self, device: torch.device):
        self.balance = torch.ones((), device=device)
        self.low = torch.zeros((), dtype=torch.int64, device=device)

    @torch.no_grad()
    def see(self, teacher_BK: Tensor) -> None:
        """Take note of one batch's logits."""
        self.balance = balance(teacher_BK)
        self.low = torch.where(self.balance < LEAST, self.low + 1, 0)

    def check(self, number: int) -> None:
        """Look, if the batch's `number` says that it is time.

        Raises:
            Collapsed: the entropy has stayed low for 50 batches.
            Diverged: it is not a number.
        """
        if number % LOOK_EVERY:
            return
        if not math.isfinite(self.balance.item()):
            raise Diverged(
                f"the generator's images became not-a-number by its step {number}",
                hint="lower the source's generator_learning_rate",
            )
        if self.low.item() >= PATIENCE:
            raise Collapsed(
                f"for {self.low.item()} generator steps the teacher has seen nearly one class only in the synthetic images "
                f"(the entropy of its mean prediction is {self.balance.item():.0%} of the maximum)",
                hint="raise the source's entropy_weight or generator_batch, or lower its one_hot_weight",
            )

    def state_dict(self) -> dict[str, Any]:
        return {"balance": self.balance, "low": self.low}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        self.balance, self.low = (state[name].clone().to(self.balance.device) for name in ("balance", "low"))


def balance(teacher_BK: Tensor) -> Tensor:
    """Entropy of the mean prediction over log K: 1 when all classes are equally frequent, 0 when there is one."""
    return -information_entropy(teacher_BK) / math.log10(teacher_BK.shape[1])
