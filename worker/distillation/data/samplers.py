"""Sampling: the order of the samples in an epoch, a function of the seed and the epoch's number only."""

import hashlib

import torch
from torch import Tensor


def generator(seed: int, *parts: int | str) -> torch.Generator:
    """A CPU generator seeded by a hash of the seed and all parts.

    A sum of seed and epoch would give neighbouring seeds the same streams. torch's CPU generator uses only the low 32 bits
    of its seed.
    """
    digest = hashlib.sha256("/".join(map(str, (seed, *parts))).encode()).digest()
    return torch.Generator().manual_seed(int.from_bytes(digest[:4], "little"))


def shuffled(size: int, seed: int, epoch: int) -> Tensor:
    """A permutation of `size` positions (size,) int64 on the CPU, a function of seed and epoch."""
    return torch.randperm(size, generator=generator(seed, "order", epoch))


def same_class(label: Tensor, anchors: Tensor, count: int, draw: torch.Generator) -> Tensor:
    """For each anchor, the positions (A, count) int64 of `count` other samples of its class, all on the CPU.

    They are drawn uniformly without replacement, or with replacement if the class has fewer than `count` others. `label`
    (N,) int64; `anchors` (A,): positions in it. No class may have a single sample: see `lonely`.
    """
    by_class = label.argsort(stable=True)
    size = label.bincount()
    start = size.cumsum(0) - size
    place = torch.empty_like(label)
    place[by_class] = torch.arange(len(label)) - start[label[by_class]]
    others = size[label[anchors]] - 1
    scarce = others < count
    taken = place[anchors][:, None]  # within the class, ascending
    drawn = []
    for number in range(count):
        left = torch.where(scarce, others, others - number)
        pick = (torch.rand(len(anchors), dtype=torch.float64, generator=draw) * left).long().clamp_max(left - 1)
        for column in taken.unbind(1):
            pick += pick >= column
        drawn.append(pick)
        # if there are too few others, only the anchor itself is excluded
        taken = torch.cat([taken, torch.where(scarce, len(label), pick)[:, None]], dim=1).sort(dim=1).values
    return by_class[start[label[anchors]][:, None] + torch.stack(drawn, dim=1)]


def lonely(label: Tensor) -> list[int]:
    """The classes with a single sample in `label` (N,)."""
    return (label.bincount() == 1).nonzero()[:, 0].tolist()


def steps(size: int, batch_size: int, drop_last: bool) -> int:
    """Number of batches in an epoch; at least one, so that a dataset smaller than a batch is one batch."""
    whole, rest = divmod(size, batch_size)
    return max(1, whole + (0 if drop_last or not rest else 1))
