"""How batches are drawn: an order of the samples for every epoch, from nothing but a seed and the epoch's number."""

import hashlib

import torch
from torch import Tensor


def generator(seed: int, *parts: int | str) -> torch.Generator:
    """A CPU generator whose stream depends on the seed and on every part.

    The parts are hashed, since torch's CPU generator reads only the low 32 bits of its seed: sums of a seed and an
    epoch would give neighbouring seeds the same streams.
    """
    digest = hashlib.sha256("/".join(map(str, (seed, *parts))).encode()).digest()
    return torch.Generator().manual_seed(int.from_bytes(digest[:4], "little"))


def shuffled(size: int, seed: int, epoch: int) -> Tensor:
    """A permutation of `size` positions (size,) int64 on the CPU, the same whenever seed and epoch are."""
    return torch.randperm(size, generator=generator(seed, "order", epoch))


def mates(label: Tensor, anchors: Tensor, count: int, draw: torch.Generator) -> Tensor:
    """For each anchor the positions (A, count) int64 of `count` other samples of its class, all on the CPU.

    They are distinct, and each set of others is as likely as any; a class with fewer than `count` others is drawn from
    with replacement. `label` (N,) int64 and `anchors` (A,), positions in it. No class may have a single sample: see
    `lonely`.
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
        # where there are too few others, only the anchor itself stays taken
        taken = torch.cat([taken, torch.where(scarce, len(label), pick)[:, None]], dim=1).sort(dim=1).values
    return by_class[start[label[anchors]][:, None] + torch.stack(drawn, dim=1)]


def lonely(label: Tensor) -> list[int]:
    """The classes that have a single sample among `label` (N,)."""
    return (label.bincount() == 1).nonzero()[:, 0].tolist()


def steps(size: int, batch_size: int, drop_last: bool) -> int:
    """Batches in an epoch; at least one, so that a dataset smaller than a batch is one batch."""
    whole, rest = divmod(size, batch_size)
    return max(1, whole + (0 if drop_last or not rest else 1))
