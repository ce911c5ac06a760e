"""Instance discrimination: a memory of features, and a loss for images that resemble existing ones.

Shapes: B batch, N features of a memory, D dimensions of a feature, E of an embedding.
"""

from collections.abc import Mapping
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class FeatureMemory:
    """The newest `capacity` features; the oldest are overwritten."""

    def __init__(self, capacity: int, dimensions: int, device: torch.device):
        self.rows = torch.zeros(capacity, dimensions, device=device)
        self.written = 0

    def __len__(self) -> int:
        return min(self.written, len(self.rows))

    def add(self, feature_BD: Tensor) -> None:
        places = (self.written + torch.arange(len(feature_BD))) % len(self.rows)
        self.rows[places.to(self.rows.device)] = feature_BD.float()
        self.written += len(feature_BD)

    def draw(self, count: int, random: torch.Generator) -> Tensor:
        """`count` features, uniform and with replacement; none if the memory is empty."""
        if not len(self):
            return self.rows[:0]
        return self.rows[torch.randint(len(self), (count,), generator=random).to(self.rows.device)]

    def state_dict(self) -> dict[str, Any]:
        return {"rows": self.rows[: len(self)], "written": self.written}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        self.written = state["written"]
        self.rows[: len(self)] = state["rows"].to(self.rows.device)


class Head(nn.Module):
    """Two layers from features (B, D) to embeddings (B, E) of length 1."""

    def __init__(self, dimensions: int, embedding: int):
        super().__init__()
        self.layers = nn.Sequential(nn.Linear(dimensions, embedding), nn.ReLU(), nn.Linear(embedding, embedding))

    def forward(self, feature_BD: Tensor) -> Tensor:
        return F.normalize(self.layers(feature_BD), dim=1)


def contrast(view_BE: Tensor, other_BE: Tensor, negatives_NE: Tensor, temperature: float) -> Tensor:
    """Cross-entropy of identifying the other view of the same image among those of all others and the negatives.

    All embeddings have length 1; similarity is their dot product divided by `temperature`.
    """
    logits = view_BE @ torch.cat([other_BE, negatives_NE]).T / temperature
    return F.cross_entropy(logits, torch.arange(len(view_BE), device=view_BE.device))
