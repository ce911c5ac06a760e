"""Distance between a batch's statistics and the running statistics of the teacher's BatchNorm layers.

Yin et al., "Dreaming to Distill", CVPR 2020, arXiv:1912.08795. The function is intercepted, not the module, so that
networks of any library are handled alike. Shapes: B batch, C channels.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.overrides import TorchFunctionMode

from worker.distillation.errors import Problem, SpecError

PLACES: dict[Any, tuple[int, int]] = {
    F.batch_norm: (1, 2),
    torch.batch_norm: (3, 4),
    torch.ops.aten.batch_norm.default: (3, 4),
    torch.ops.aten._native_batch_norm_legit_no_training.default: (3, 4),
}
"""The positions of the running mean and variance among the arguments of each normalising function."""
NAMES = ("running_mean", "running_var")


class StatisticsReader(TorchFunctionMode):
    """Within this context, every normalisation by running statistics appends to `found`, in the order of execution:
    the input's mean and biased variance, then the running ones, each (C,) float32 and with its gradient."""

    def __init__(self) -> None:
        super().__init__()
        self.found: list[tuple[Tensor, Tensor, Tensor, Tensor]] = []

    def __torch_function__(
        self,
        function: Callable[..., Any],
        types: Any,
        args: Sequence[Any] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        given = kwargs or {}
        if function in PLACES:
            places = zip(NAMES, PLACES[function], strict=True)
            kept = [given.get(name, args[at] if len(args) > at else None) for name, at in places]
            x = given.get("input", args[0] if args else None)
            if all(each is not None for each in (x, *kept)):
                self._note(x, *kept)
        return function(*args, **given)

    def _note(self, x: Any, mean_C: Any, variance_C: Any) -> None:
        rest = [dimension for dimension in range(x.ndim) if dimension != 1]
        own_variance, own_mean = torch.var_mean(x.float(), rest, correction=0)
        self.found.append((own_mean, own_variance, mean_C.float(), variance_C.float()))


class BatchStatistics:
    """The distance of a batch's statistics from a teacher's running statistics, summed over its normalisations
    (`r_feature`).

    For each, it is the Euclidean norm of the difference of means plus that of the difference of variances; the first
    normalisation has the weight `first_weight`. With a `momentum` m, the batch has weight 1 - m, and the running mean
    of earlier batches, which `remember` updates, has weight m (Fang et al., arXiv:2112.15309).
    """

    def __init__(self, first_weight: float = 1.0, momentum: float = 0.0):
        self.first_weight, self.momentum = first_weight, momentum
        self._reader = StatisticsReader()
        self._past: list[tuple[Tensor, Tensor]] = []
        self._last: list[tuple[Tensor, Tensor]] = []

    def reading(self) -> StatisticsReader:
        """The context for the teacher's forward pass on the batch to be measured."""
        self._reader.found = []
        return self._reader

    def distance(self) -> Tensor:
        """The distance of the batch that was read last."""
        terms = []
        for number, (mean_C, variance_C, kept_mean_C, kept_variance_C) in enumerate(self._reader.found):
            if self._past:
                past_mean_C, past_variance_C = self._past[number]
                mean_C = torch.lerp(mean_C, past_mean_C, self.momentum)
                variance_C = torch.lerp(variance_C, past_variance_C, self.momentum)
            away = norm(mean_C - kept_mean_C) + norm(variance_C - kept_variance_C)
            terms.append(away if number else self.first_weight * away)
        self._last = [(mean_C.detach(), variance_C.detach()) for mean_C, variance_C, *_ in self._reader.found]
        self._reader.found = []
        return torch.stack(terms).sum()

    def remember(self) -> None:
        """Update the running mean of earlier batches with the batch measured last. Does nothing without a momentum."""
        if not self.momentum:
            return
        self._past = [
            (torch.lerp(mean, past_mean, self.momentum), torch.lerp(variance, past_variance, self.momentum))
            for (mean, variance), (past_mean, past_variance) in zip(self._last, self._past or self._last, strict=True)
        ]

    def state_dict(self) -> dict[str, Any]:
        return {"past": self._past, "last": self._last}

    def load_state_dict(self, state: Mapping[str, Any], device: torch.device) -> None:
        for name in ("past", "last"):
            setattr(self, f"_{name}", [tuple(each.to(device) for each in pair) for pair in state[name]])


def norm(x: Tensor) -> Tensor:
    """Euclidean norm, whose gradient at 0 is 0."""
    return torch.linalg.vector_norm(x)


def check_kept(network: Callable[[Tensor], Any], example: Tensor) -> None:
    """Check that a network, in evaluation mode, normalises by running statistics.

    Raises:
        SpecError: it does not.
    """
    with torch.no_grad(), StatisticsReader() as reader:
        network(example)
    if not reader.found:
        words = "has no BatchNorm layers with running statistics, which the source must match"
        raise SpecError([Problem("/teacher", words)], "Choose the source `dfad` or `dafl`.")
