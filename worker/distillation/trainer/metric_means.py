"""Means of a stage's metrics between two reports, without synchronising with the device in between."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from worker.distillation.distributed.ranks import ALONE, Ranks

MOST_KEPT = 64
"""Number of values of a metric that are kept before they are added up."""


@dataclass
class MetricMeans:
    """Running means of the metrics since the last `read`, kept on the device.

    A step only keeps its values; they are added up in float64 many at a time, so that a step has no kernels of its own for them.
    """

    sums: dict[str, Tensor] = field(default_factory=dict)
    counts: dict[str, int] = field(default_factory=dict)
    _kept: dict[str, list[Tensor]] = field(default_factory=dict)

    def add(self, values: Mapping[str, Tensor | float]) -> None:
        for name, value in values.items():
            kept = self._kept.setdefault(name, [])
            kept.append(value.detach() if isinstance(value, Tensor) else torch.tensor(value, dtype=torch.float64))
            self.counts[name] = self.counts.get(name, 0) + 1
            if len(kept) == MOST_KEPT:
                self._add_up(name)

    def combine(self, ranks: Ranks) -> None:
        """Add all ranks' sums on rank 0 and reset the others; all ranks must have added the same names."""
        self._add_up_all()
        if ranks.size > 1:
            totals = self._totals(ranks)
            self.sums = {
                name: torch.tensor(total if ranks.leads else 0.0, dtype=torch.float64) for name, total in totals.items()
            }

    def read(self, ranks: Ranks = ALONE) -> dict[str, float]:
        """The means over all ranks as numbers, on every rank; then reset."""
        self._add_up_all()
        means = {name: total / self.counts[name] for name, total in self._totals(ranks).items()}
        self.sums = {}
        self.counts = {}
        return means

    def state_dict(self) -> dict[str, Any]:
        """The state that rank 0 saves; call `combine` before."""
        return {"sums": self.sums, "counts": self.counts}

    def load_state_dict(self, state: Mapping[str, Any], device: torch.device, leads: bool) -> None:
        """Restore what `state_dict` returned if this rank `leads`; other ranks start with zero sums."""
        sums = {name: value.to(device) for name, value in state["sums"].items()}
        self.sums = sums if leads else {name: torch.zeros_like(value) for name, value in sums.items()}
        self.counts = state["counts"]
        self._kept = {}

    def _add_up_all(self) -> None:
        for name in list(self._kept):
            self._add_up(name)

    def _add_up(self, name: str) -> None:
        """Move what is kept of a metric into its sum."""
        kept = self._kept.pop(name)
        devices = {value.device for value in kept}
        values = kept if len(devices) == 1 else [value.cpu() for value in kept]
        total = torch.stack([value.double() for value in values] if _differ(values) else values).double().sum()
        if name in self.sums:
            total = self.sums[name].to(total.device) + total
        self.sums[name] = total

    def _totals(self, ranks: Ranks) -> dict[str, float]:
        parts = ranks.collect({name: float(total) for name, total in self.sums.items()})
        return {name: sum(part[name] for part in parts) for name in self.sums}


def _differ(values: list[Tensor]) -> bool:
    """Whether the values are not all of one dtype, so that they cannot be stacked as they are."""
    return any(value.dtype != values[0].dtype for value in values)
