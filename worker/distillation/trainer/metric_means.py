"""Means of a stage's metrics between two reports, without synchronising with the device in between."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from worker.distillation.distributed.ranks import ALONE, Ranks


@dataclass
class MetricMeans:
    """Running means of the metrics since the last `read`, kept on the device."""

    sums: dict[str, Tensor] = field(default_factory=dict)
    counts: dict[str, int] = field(default_factory=dict)

    def add(self, values: Mapping[str, Tensor | float]) -> None:
        for name, value in values.items():
            value = value.detach().double() if isinstance(value, Tensor) else torch.tensor(value, dtype=torch.float64)
            self.sums[name] = self.sums[name] + value if name in self.sums else value
            self.counts[name] = self.counts.get(name, 0) + 1

    def combine(self, ranks: Ranks) -> None:
        """Add all ranks' sums on rank 0 and reset the others; all ranks must have added the same names."""
        if ranks.size > 1:
            totals = self._totals(ranks)
            self.sums = {
                name: torch.tensor(total if ranks.leads else 0.0, dtype=torch.float64) for name, total in totals.items()
            }

    def read(self, ranks: Ranks = ALONE) -> dict[str, float]:
        """The means over all ranks as numbers, on every rank; then reset."""
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

    def _totals(self, ranks: Ranks) -> dict[str, float]:
        parts = ranks.collect({name: float(total) for name, total in self.sums.items()})
        return {name: sum(part[name] for part in parts) for name in self.sums}
