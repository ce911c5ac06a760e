"""How a batch lies on several ranks, so that they learn what one process would learn of the whole.

A mean over samples is the sum of the ranks' means, each times its share of the batch. What is no such mean is measured
on the whole batch, gathered, by every rank alike, and counts for one part in `size` on each. A batch of fewer images than
there are ranks is the whole batch on each of them.
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
    """A batch's samples on each rank, in the order of the ranks; no `sizes` where each has the whole batch."""

    ranks: Ranks = ALONE
    sizes: tuple[int, ...] = ()

    @classmethod
    def of(cls, count: int, ranks: Ranks) -> "Division":
        """`count` samples, as even as can be: the first ranks get one more."""
        if ranks.size == 1 or count < ranks.size:
            return cls(ranks)
        least, more = divmod(count, ranks.size)
        return cls(ranks, tuple(least + (rank < more) for rank in range(ranks.size)))

    @property
    def rows(self) -> slice:
        """This rank's samples of the whole batch."""
        if not self.sizes:
            return slice(None)
        start = sum(self.sizes[: self.ranks.rank])
        return slice(start, start + self.sizes[self.ranks.rank])

    @property
    def share(self) -> float:
        """What a mean over this rank's samples counts for in the mean over the batch."""
        return self.sizes[self.ranks.rank] / sum(self.sizes) if self.sizes else self.copy_share

    @property
    def copy_share(self) -> float:
        """What a value of the whole batch counts for, which every rank measures."""
        return 1 / self.ranks.size

    def statistics(self) -> AbstractContextManager[object]:
        """A context in which batch normalisation reads the whole batch."""
        return WholeBatch(self.ranks) if self.sizes else nullcontext()

    def gather(self, x: Tensor) -> Tensor:
        """This rank's rows (b, ...) among those of all ranks (B, ...), in single precision where it was lower; gradients
        flow back to the rank that has the rows."""
        if not self.sizes:
            return x
        x = x.float() if x.dtype in (torch.float16, torch.bfloat16) else x
        before = self.rows.start
        after = sum(self.sizes) - self.rows.stop
        return self.ranks.summed(F.pad(x, (0, 0) * (x.ndim - 1) + (before, after)))

    def add_gradients(self, optimizer: Optimizer) -> None:
        """Sum the ranks' gradients of what an optimiser trains; all ranks have one for the same parameters."""
        parameters = (parameter for group in optimizer.param_groups for parameter in group["params"])
        self.ranks.add_up(parameter.grad for parameter in parameters if parameter.grad is not None)


UNDIVIDED = Division()
