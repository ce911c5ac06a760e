"""Statistics of a teacher's activations on real data: the metadata of data-free distillation.

Lopes, Fenu, Starner, "Data-Free Knowledge Distillation for Deep Neural Networks", arXiv:1710.07535. For every tap and
class, a file contains the mean and a factor of the covariance. A sample is `mean + z @ factor`, with z of R independent
standard normal numbers. All taps share z, so a sample keeps the correlations between layers.
Shapes: B batch, K classes, R rank, D activations of a tap.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from torch import Tensor

from worker.distillation.errors import UploadError
from worker.distillation.limits import UploadLimits
from worker.distillation.uploads.state_dicts import read_tensors

HINT = "Create the file with `distillery_client.statistics.collect`; docs/datafree.md describes its content."


@dataclass(frozen=True)
class TapStatistics:
    """`mean` (K, D), `factor` (K, R, D), and `minimum` (), the smallest observed activation."""

    mean: Tensor
    factor: Tensor
    minimum: Tensor

    def sample(self, label_B: Tensor, z_BR: Tensor) -> Tensor:
        """Activations (B, D) of these classes, clamped to the observed minimum (0 after a ReLU)."""
        drawn = self.mean[label_B]
        for label in label_B.unique().tolist():
            rows = label_B == label
            drawn[rows] += z_BR[rows] @ self.factor[label]
        return drawn.clamp_min(self.minimum)


@dataclass(frozen=True)
class ActivationStatistics:
    """Statistics of all taps by name, with the same number of classes and the same rank."""

    taps: Mapping[str, TapStatistics]

    @property
    def classes(self) -> int:
        return next(len(each.mean) for each in self.taps.values())

    @property
    def rank(self) -> int:
        return next(each.factor.shape[1] for each in self.taps.values())

    @classmethod
    def load(cls, path: Path, device: torch.device) -> "ActivationStatistics":
        """Read the canonical form."""
        tensors = load_file(path, device=str(device))
        names = sorted({name.rpartition("/")[0] for name in tensors})
        parts = ("mean", "factor", "minimum")
        return cls({name: TapStatistics(*(tensors[f"{name}/{part}"] for part in parts)) for name in names})

    def tensors(self) -> dict[str, Tensor]:
        """The canonical form."""
        return {
            f"{name}/{part}": getattr(each, part).contiguous()
            for name, each in self.taps.items()
            for part in ("mean", "factor", "minimum")
        }

    def findings(self) -> dict[str, Any]:
        """The findings of an inspection."""
        numbers = {name: each.mean.shape[1] for name, each in self.taps.items()}
        return {"classes": self.classes, "rank": self.rank, "taps": numbers}


def read(path: Path, limits: UploadLimits) -> ActivationStatistics:
    """Read an uploaded file: `TAP/mean` (K, D); `TAP/factor` (K, R, D) or, if there is one tap, `TAP/covariance` (K, D, D);
    and optionally `TAP/minimum` () (default: unbounded).

    Raises:
        UploadError: the statistics are incomplete or inconsistent.
    """
    tensors = {name: tensor.float() for name, tensor in read_tensors(path, limits).items()}
    grouped: dict[str, dict[str, Tensor]] = {}
    for name, tensor in tensors.items():
        tap, slash, part = name.rpartition("/")
        if not slash or part not in ("mean", "factor", "covariance", "minimum"):
            raise UploadError(f"the name {name!r} is not TAP/mean, TAP/factor, TAP/covariance or TAP/minimum", HINT)
        grouped.setdefault(tap, {})[part] = tensor
    if len(grouped) > 1 and any("covariance" in parts for parts in grouped.values()):
        raise UploadError(
            "a covariance is allowed for a single tap only: with several taps, give a factor for each", HINT
        )
    statistics = ActivationStatistics({tap: _of_tap(tap, parts) for tap, parts in grouped.items()})
    for tap, each in statistics.taps.items():
        if (len(each.mean), each.factor.shape[1]) != (statistics.classes, statistics.rank):
            raise UploadError(f"the tap {tap!r} has a different number of classes or rank than the other taps", HINT)
    return statistics


def _of_tap(tap: str, parts: Mapping[str, Tensor]) -> TapStatistics:
    mean = parts.get("mean")
    if mean is None or mean.ndim != 2 or len(mean) < 2:
        raise UploadError(
            f"'{tap}/mean' is required, with the shape (classes, activations) and at least 2 classes", HINT
        )
    if ("factor" in parts) == ("covariance" in parts):
        raise UploadError(f"the tap {tap!r} must have either a factor or a covariance", HINT)
    factor = parts["factor"] if "factor" in parts else _factor_of(tap, parts["covariance"])
    if factor.ndim != 3 or (len(factor), factor.shape[2]) != tuple(mean.shape):
        raise UploadError(f"the shapes of the mean and of the factor or covariance of {tap!r} do not match", HINT)
    minimum = parts.get("minimum", torch.tensor(torch.finfo(torch.float32).min))
    if minimum.numel() != 1:
        raise UploadError(f"'{tap}/minimum' must be one number", HINT)
    return TapStatistics(mean, factor, minimum.reshape(()))


def _factor_of(tap: str, covariance_KDD: Tensor) -> Tensor:
    """A factor F (K, D, D) with FᵀF = covariance."""
    shape = covariance_KDD.shape
    if covariance_KDD.ndim != 3 or shape[1] != shape[2]:
        raise UploadError(f"'{tap}/covariance' must have the shape (classes, activations, activations)", HINT)
    values_KD, vectors_KDD = torch.linalg.eigh(covariance_KDD.double())
    largest = values_KD.abs().amax().clamp_min(1e-30)
    skew = (covariance_KDD - covariance_KDD.transpose(1, 2)).abs().amax()
    if values_KD.min() < -1e-4 * largest or skew > 1e-4 * largest:
        raise UploadError(f"'{tap}/covariance' must be symmetric and positive semi-definite", HINT)
    return (vectors_KDD * values_KD.clamp_min(0).sqrt()[:, None]).transpose(1, 2).float()
