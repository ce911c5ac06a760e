"""Contrastive loss with a memory bank: an embedding against those of samples of other classes.

Shapes: N rows of the memory bank, B batch, K negatives of each sample, D dimensions.
"""

import math

import torch
import torch.nn.functional as F
from torch import Tensor


def other_classes(known_N: Tensor, label_B: Tensor, count: int, draw: torch.Generator) -> tuple[Tensor, Tensor]:
    """`(rows, possible)`: (B, K) rows of other classes, drawn uniformly with replacement, and (B,) whether there are any.

    `known_N` int64 holds the class of each row of the memory bank; rows with -1 are empty and never drawn. If `possible` is
    false, the rows are arbitrary and must not be used. `draw` is a generator on the labels' device.
    """
    by_class = known_N.argsort(stable=True)
    ordered = known_N[by_class]
    empty = (known_N < 0).sum()
    first = torch.searchsorted(ordered, label_B)
    own = torch.searchsorted(ordered, label_B, right=True) - first
    others = (len(known_N) - empty - own)[:, None]
    uniform = torch.rand(len(label_B), count, dtype=torch.float64, device=known_N.device, generator=draw)
    place = empty + torch.minimum((uniform * others).long(), others - 1)
    place += (place >= first[:, None]) * own[:, None]
    return by_class[place.clamp(0, len(known_N) - 1)], others[:, 0] > 0


def contrast(log_ratio_BK: Tensor, possible_B: Tensor) -> Tensor:
    """`-log h(positive) - sum log(1 - h(negative))`, mean over the batch, with `h = P / (P + K / N)`.

    `log_ratio_BK` (B, 1 + K) is log(P N) of the positive, then of K negatives. The negatives of samples that are not
    `possible` are ignored.
    """
    logits = log_ratio_BK - math.log(log_ratio_BK.shape[1] - 1)
    return (F.softplus(-logits[:, 0]) + F.softplus(logits[:, 1:]).sum(1) * possible_B).mean()


def moved(bank_ND: Tensor, index_B: Tensor, value_BD: Tensor, momentum: float) -> Tensor:
    """The bank with the rows at `index_B` moved towards `value_BD` and normalised to length 1; other rows are unchanged."""
    rows = F.normalize(momentum * bank_ND[index_B] + (1 - momentum) * value_BD, dim=1)
    return bank_ND.index_copy(0, index_B, rows)
