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


def steps(size: int, batch_size: int, drop_last: bool) -> int:
    """Batches in an epoch; at least one, so that a dataset smaller than a batch is one batch."""
    whole, rest = divmod(size, batch_size)
    return max(1, whole + (0 if drop_last or not rest else 1))
