"""Batch normalisation over all ranks' samples.

torch's SyncBatchNorm needs GPUs and replaced modules, and has no second derivatives. This replaces `F.batch_norm` within a
context instead, so networks and connectors of any library work unchanged.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.overrides import TorchFunctionMode

from worker.distillation.distributed.ranks import Ranks


class WholeBatch(TorchFunctionMode):
    """A context in which `F.batch_norm` in training mode normalises by the mean and variance over all ranks' samples."""

    def __init__(self, ranks: Ranks):
        super().__init__()
        self._ranks = ranks

    def __torch_function__(
        self,
        function: Callable[..., Any],
        types: Any,
        args: Sequence[Any] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        if function is F.batch_norm:
            return _batch_norm(self._ranks, *args, **(kwargs or {}))
        return function(*args, **(kwargs or {}))


def _batch_norm(
    ranks: Ranks,
    input: Tensor,
    running_mean: Tensor | None,
    running_var: Tensor | None,
    weight: Tensor | None = None,
    bias: Tensor | None = None,
    training: bool = False,
    momentum: float = 0.1,
    eps: float = 1e-5,
) -> Tensor:
    if not training:
        return F.batch_norm(input, running_mean, running_var, weight, bias, training, momentum, eps)
    x = input if input.dtype == torch.float64 else input.float()
    mean_C, variance_C, count = statistics(x, ranks)
    if running_mean is not None and running_var is not None:
        with torch.no_grad():
            running_mean.lerp_(mean_C.to(running_mean.dtype), momentum)
            running_var.lerp_((variance_C * (count / (count - 1))).to(running_var.dtype), momentum)
    scale_C = (variance_C + eps).rsqrt()
    scale_C = scale_C if weight is None else scale_C * weight
    shape = (1, -1, *(1,) * (x.ndim - 2))
    normal = (x - mean_C.view(shape)) * scale_C.view(shape)
    return (normal if bias is None else normal + bias.view(shape)).to(input.dtype)


def statistics(x: Tensor, ranks: Ranks) -> tuple[Tensor, Tensor, Tensor]:
    """Mean (C,), biased variance (C,) and count () of the values in each channel of all ranks' `x` (B, C, ...).

    Combines the ranks' means and variances, which is more accurate than sums of squares.
    """
    rest = [dimension for dimension in range(x.ndim) if dimension != 1]
    variance_C, mean_C = torch.var_mean(x, rest, correction=0)
    count = x.new_full((1,), x.numel() // x.shape[1])
    own = torch.cat([mean_C, variance_C, count])
    before = own.new_zeros(ranks.rank, len(own))
    after = own.new_zeros(ranks.size - 1 - ranks.rank, len(own))
    means_RC, variances_RC, counts_R1 = ranks.summed(torch.cat([before, own[None], after])).split(
        [len(mean_C), len(variance_C), 1], dim=1
    )
    total = counts_R1.detach().sum()
    shares_R1 = counts_R1.detach() / total
    mean_C = (shares_R1 * means_RC).sum(0)
    variance_C = (shares_R1 * (variances_RC + (means_RC - mean_C).square())).sum(0)
    return mean_C, variance_C, total
