"""Parametrisations that round a weight in training and pass its gradient straight through.

Each has `quantised(weight)`, the weight as it will be stored, and `tables(weight)`, from which a finalised weight is decoded.
Scales are parameters of one dimension, so that no weight decay applies to them. Shapes: O output channels, G groups, N values.
"""

from typing import Any

import torch
from torch import Tensor, nn

from worker.distillation.compression.storage import Stored, nearest, uniform_values

SMALLEST = torch.finfo(torch.float32).tiny


def straight_through(weight: Tensor, quantised: Tensor) -> Tensor:
    """The quantised value, with the gradient of the weight (Bengio et al., arXiv:1308.3432)."""
    return weight + (quantised - weight).detach()


class Quantiser(nn.Module):
    """A rounded weight of `shape`, with codes of `bits` bits."""

    def __init__(self, shape: tuple[int, ...], bits: int):
        super().__init__()
        self.shape = tuple(shape)
        self.bits = bits
        self.numel = int(torch.Size(shape).numel())

    def stored(self) -> Stored:
        """How the weight is stored."""
        raise NotImplementedError

    def tables(self, weight: Tensor) -> dict[str, Tensor]:
        """The tables of the weight (see `storage.note`)."""
        raise NotImplementedError

    def quantised(self, weight: Tensor) -> Tensor:
        """The weight as it is stored, without a gradient."""
        tables = self.tables(weight)
        return uniform_values(weight, self.stored(), tables["scale"], tables.get("offset"))

    def start(self, weight: Tensor) -> None:
        """Set initial scales from the weight."""

    def forward(self, weight: Tensor) -> Tensor:
        return straight_through(weight, self.quantised(weight.detach()))


class Symmetric(Quantiser):
    """One scale for each output channel: the channel's largest absolute value gets the largest code."""

    def stored(self) -> Stored:
        return Stored("uniform", self.bits, -(2 ** (self.bits - 1)), self.numel // self.shape[0])

    @property
    def largest(self) -> int:
        """The largest code. The least, -2^(bits-1), is not used, so that signs can be flipped."""
        return 2 ** (self.bits - 1) - 1

    def tables(self, weight: Tensor) -> dict[str, Tensor]:
        return {"scale": (weight.detach().flatten(1).abs().amax(1) / self.largest).clamp(min=SMALLEST)}


class LearnedStep(Symmetric):
    """LSQ: the scales are trained (Esser et al., "Learned step size quantization", arXiv:1902.08153), here one for each channel.

    The gradient of a scale s is `sum_i g_i (round(w_i/s) - w_i/s)`, or `g_i` times the least or largest code where the weight is
    clipped, times `1 / sqrt(n * largest)` for n values a scale. Clipped weights have no gradient.
    """

    def __init__(self, shape: tuple[int, ...], bits: int):
        super().__init__(shape, bits)
        self.scale = nn.Parameter(torch.ones(shape[0]))

    @torch.no_grad()
    def start(self, weight: Tensor) -> None:
        """`2 mean|w| / sqrt(largest)`, as in the paper."""
        self.scale.copy_((2 * weight.flatten(1).abs().mean(1) / self.largest**0.5).clamp(min=1e-8))

    def tables(self, weight: Tensor) -> dict[str, Tensor]:
        return {"scale": self.scale.detach().abs().clamp(min=SMALLEST)}

    def forward(self, weight: Tensor) -> Tensor:
        factor = (self.numel // self.shape[0] * self.largest) ** -0.5
        scale_O1 = scaled_gradient(self.scale, factor).abs().clamp(min=SMALLEST)[:, None]
        ratio = weight.flatten(1) / scale_O1
        clipped = ratio.clamp(-self.largest - 1, self.largest)
        rounded = clipped + (clipped.round() - clipped).detach()
        return (rounded * scale_O1).reshape(weight.shape)


class MinMax(Symmetric):
    """The symmetric scales of the weight as it is, without clipping, and a straight-through gradient."""


class Bucketed(Quantiser):
    """Buckets of consecutive values, each with its own least value and step: `2^bits - 1` steps between its extremes.

    Polino, Pascanu, Alistarh, "Model compression via distillation and quantization", arXiv:1802.05668; values are clipped nowhere.
    """

    def __init__(self, shape: tuple[int, ...], bits: int, bucket: int = 256):
        super().__init__(shape, bits)
        self.bucket = bucket

    def stored(self) -> Stored:
        return Stored("uniform", self.bits, 0, self.bucket)

    def tables(self, weight: Tensor) -> dict[str, Tensor]:
        flat = weight.detach().reshape(-1)
        missing = -len(flat) % self.bucket
        buckets = torch.cat([flat, flat[-1:].expand(missing)]).reshape(-1, self.bucket)
        low, high = buckets.amin(1), buckets.amax(1)
        width = high - low
        scale = torch.where(width < 1e-10, torch.ones_like(width), width / (2**self.bits - 1))
        return {"scale": scale, "offset": low}


class Ternary(Quantiser):
    """TTQ: the values -Wn, 0 and Wp, both trained (Zhu et al., "Trained ternary quantization", arXiv:1612.01064).

    Weights above 0.05 times the largest absolute value are positive, those below its negative are negative. The gradient of Wp is
    the sum over the positive set, that of Wn minus the sum over the negative set; the weight's own is scaled by Wp, 1 or Wn.
    """

    threshold = 0.05

    def __init__(self, shape: tuple[int, ...], bits: int = 2):
        super().__init__(shape, 2)
        self.positive = nn.Parameter(torch.ones(1))
        self.negative = nn.Parameter(torch.ones(1))

    def stored(self) -> Stored:
        return Stored("codebook", 2)

    @torch.no_grad()
    def start(self, weight: Tensor) -> None:
        """The means of both sets, so that the ternary weight is near the weight. The paper starts from a trained network."""
        above, below = self._sets(weight)
        self.positive.copy_(_mean(weight[above]))
        self.negative.copy_(_mean(-weight[below]))

    def _sets(self, weight: Tensor) -> tuple[Tensor, Tensor]:
        border = self.threshold * weight.abs().max()
        return weight > border, weight < -border

    def tables(self, weight: Tensor) -> dict[str, Tensor]:
        positive, negative = self.positive.detach(), self.negative.detach()
        return {"table": torch.cat([-negative, torch.zeros_like(positive), positive])}

    def quantised(self, weight: Tensor) -> Tensor:
        above, below = self._sets(weight.detach())
        table = self.tables(weight)["table"]
        return table[(1 + above.long() - below.long())]

    def forward(self, weight: Tensor) -> Tensor:
        above, below = self._sets(weight.detach())
        return _TernaryGradient.apply(weight, self.positive, self.negative, above, below)


class _TernaryGradient(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, weight: Tensor, positive: Tensor, negative: Tensor, above: Tensor, below: Tensor) -> Tensor:
        ctx.save_for_backward(positive, negative, above, below)
        return positive * above - negative * below

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Any:
        positive, negative, above, below = ctx.saved_tensors
        factor = torch.where(above, positive, torch.where(below, negative, torch.ones_like(positive)))
        return gradient * factor, (gradient * above).sum().reshape(1), -(gradient * below).sum().reshape(1), None, None


class WideReduced(Quantiser):
    """WRPN: weights clipped to [-1, 1] and rounded to multiples of `1 / (2^(bits-1) - 1)` (Mishra et al., arXiv:1709.01134)."""

    def stored(self) -> Stored:
        return Stored("uniform", self.bits, -(2 ** (self.bits - 1)), self.numel)

    def tables(self, weight: Tensor) -> dict[str, Tensor]:
        return {"scale": torch.full((1,), 1 / (2 ** (self.bits - 1) - 1), device=weight.device)}

    def quantised(self, weight: Tensor) -> Tensor:
        return super().quantised(weight.clamp(-1, 1))

    def forward(self, weight: Tensor) -> Tensor:
        return straight_through(weight.clamp(-1, 1), self.quantised(weight.detach()))


SCHEMES: dict[str, type[Quantiser]] = {
    "lsq": LearnedStep,
    "minmax": MinMax,
    "bucket": Bucketed,
    "ttq": Ternary,
    "wrpn": WideReduced,
}


def codebook_values(weight: Tensor, table: Tensor) -> Tensor:
    """The weight rounded to the nearest entries of a table (K,)."""
    return table[nearest(weight.detach().reshape(-1), table)].reshape(weight.shape)


def scaled_gradient(value: Tensor, factor: float) -> Tensor:
    """The value, with its gradient times a factor."""
    scaled = value * factor
    return scaled + (value - scaled).detach()


def _mean(values: Tensor) -> Tensor:
    return values.mean().clamp(min=1e-8).reshape(1) if values.numel() else values.new_full((1,), 1e-8)
