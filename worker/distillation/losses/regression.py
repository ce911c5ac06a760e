"""Regression losses: distances between real outputs and their targets.

Shapes: B batch, D outputs.
"""

from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

Form = Literal["squared", "smooth_l1", "absolute"]


def deviation(given_BD: Tensor, wanted_BD: Tensor, form: Form, threshold: float = 1.0) -> Tensor:
    """The loss (B, D) of each output with the difference d: `d²`, `|d|`, or the smooth L1 loss of Girshick,
    arXiv:1504.08083, equation 3: `d² / (2 threshold)` below the threshold and `|d| - threshold / 2` beyond it."""
    if form == "squared":
        return (given_BD - wanted_BD).square()
    if form == "absolute":
        return (given_BD - wanted_BD).abs()
    return F.smooth_l1_loss(given_BD, wanted_BD, reduction="none", beta=threshold)


def pose_weights(outputs: int, rotations: int, weight: float, device: torch.device) -> Tensor:
    """Weights (D,) of a pose's outputs: 1 for translations, which come first, and `weight` for the last `rotations`."""
    weights = torch.ones(outputs, device=device)
    weights[outputs - rotations :] = weight
    return weights
