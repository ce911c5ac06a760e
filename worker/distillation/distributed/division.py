"""The division of a batch over ranks, such that training gives the same result as in one process.

A mean over samples is the sum of the ranks' means, each times its share of the batch. Losses that are not sample means
are computed on the gathered batch by every rank, each with weight 1 / `size`. If a batch has fewer images than there
are ranks, every rank gets the whole batch.
"""

from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.optim import Optimizer

from worker.distillation.distributed.ranks import ALONE, Ranks
from worker.distillation.distributed.sync_batch_norm import WholeBatch


@dataclass(frozen=True)
class Division:
    """Number of samples on each rank, by rank; `sizes` is empty if every rank has the whole batch."""

    ranks: Ranks = ALONE
    sizes: tuple[int, ...] = ()

    @classmethod
    def of(cls, count: int, ranks: Ranks) -> "Division":
        """Divide `count` samples as evenly as possible: the first ranks get one more."""
        if ranks.size == 1 or count < ranks.size:
            return cls(ranks)
        least, more = divmod(count, ranks.size)
        return cls(ranks, tuple(least + (rank < more) for rank in range(ranks.size)))

    @property
    def rows(self) -> slice:
        """This rank's rows of the whole batch."""
        if not self.sizes:
            return slice(None)
        start = sum(self.sizes[: self.ranks.rank])
        return slice(start, start + self.sizes[self.ranks.rank])

    @property
    def share(self) -> float:
        """Weight of a mean over this rank's samples in the mean over the batch."""
        return self.sizes[self.ranks.rank] / sum(self.sizes) if self.sizes else self.copy_share

    @property
    def copy_share(self) -> float:
        """Weight of a value that every rank computes on the whole batch."""
        return 1 / self.ranks.size

    def statistics(self) -> AbstractContextManager[object]:
        """A context in which batch normalisation uses the statistics of the whole batch."""
        return WholeBatch(self.ranks) if self.sizes else nullcontext()

    def gather(self, x: Tensor) -> Tensor:
        """All ranks' rows (B, ...) from this rank's rows (b, ...), in float32 if they are of lower precision; gradients flow
        back to the rank that owns the rows."""
        if not self.sizes:
            return x
        x = x.float() if x.dtype in (torch.float16, torch.bfloat16) else x
        before = self.rows.start
        after = sum(self.sizes) - self.rows.stop
        return self.ranks.summed(F.pad(x, (0, 0) * (x.ndim - 1) + (before, after)))

    def add_gradients(self, optimizer: Optimizer) -> None:
        """Sum the ranks' gradients of an optimiser's parameters; the same parameters must have gradients on all ranks."""
        parameters = (parameter for group in optimizer.param_groups for parameter in group["params"])
        self.ranks.add_up(parameter.grad for parameter in parameters if parameter.grad is not None)


UNDIVIDED = Division()
