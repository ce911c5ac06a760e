"""What a search has found: the best reading, and those that are about as good.

Shapes: N images.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from worker.distillation.contract_check.comparison import sigma
from worker.distillation.recovery.reading import Reading


@dataclass(frozen=True)
class Scored:
    """A reading and its answers: `right` (N,), the mean cross-entropy in nats, and that of each image (N,) with the logits scaled
    so that the mean is lowest."""

    reading: Reading
    right: Tensor
    cross_entropy: float
    losses: Tensor

    @property
    def accuracy(self) -> float:
        return float(self.right.double().mean())

    @property
    def rank(self) -> tuple[float, float]:
        """Larger is better."""
        return self.accuracy, -self.cross_entropy


@dataclass(frozen=True)
class Recovered:
    """The best reading; `ties` are other readings that are not clearly worse, `tried` how many geometries were."""

    best: Scored
    ties: tuple[Scored, ...]
    tried: int


def margins(found: Recovered) -> list[dict[str, Any]]:
    """The best reading and its ties as plain values, with the difference in accuracy to the best."""
    best = found.best
    rows: list[dict[str, Any]] = []
    for each in (best, *found.ties):
        reading = each.reading
        rows.append(
            {
                "activation": reading.activation,
                "other_activations": [list(pair) for pair in reading.activations],
                "pooling": reading.pooling if reading.geometry.pools else None,
                "other_poolings": [list(pair) for pair in reading.poolings],
                "normalisation": reading.normalisation.name,
                "geometry": [list(_plain(placed)) for placed in reading.geometry.placements],
                "sums": list(reading.geometry.skips),
                "accuracy": round(each.accuracy, 4),
                "margin": round(best.accuracy - each.accuracy, 4),
                "sigma": round(sigma(each.right, best.right), 1),
            }
        )
    return rows


def _plain(placed: object) -> Iterator[object]:
    return iter(vars(placed).values())
