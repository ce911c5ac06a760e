"""Averages: means of a stage's terms between two reports, without waiting for the device in between."""

from collections.abc import Mapping
from dataclasses import dataclass, field

import torch
from torch import Tensor


@dataclass
class Averages:
    """Running means of the terms since they were last read, kept on the device."""

    sums: dict[str, Tensor] = field(default_factory=dict)
    counts: dict[str, int] = field(default_factory=dict)

    def add(self, values: Mapping[str, Tensor | float]) -> None:
        for name, value in values.items():
            value = value.detach().double() if isinstance(value, Tensor) else torch.tensor(value, dtype=torch.float64)
            self.sums[name] = self.sums[name] + value if name in self.sums else value
            self.counts[name] = self.counts.get(name, 0) + 1

    def read(self) -> dict[str, float]:
        """The means, as numbers; starts anew."""
        means = {name: float(total) / self.counts[name] for name, total in self.sums.items()}
        self.sums, self.counts = {}, {}
        return means
