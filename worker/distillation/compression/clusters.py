"""Values in clusters: one-dimensional k-means."""

import torch
from torch import Tensor

from worker.distillation.compression.storage import nearest

ITERATIONS = 50


def linear_centroids(values: Tensor, count: int) -> Tensor:
    """Centroids (K,) at even distances between the extremes of the values (N,), as Han et al. begin (arXiv:1510.00149)."""
    return torch.linspace(float(values.min()), float(values.max()), count, device=values.device)


def quantile_centroids(values: Tensor, count: int) -> Tensor:
    """Centroids (K,) at even quantiles of the values (N,), as Polino et al. begin (arXiv:1802.05668)."""
    places = torch.linspace(0, len(values) - 1, count, device=values.device).round().long()
    return values.sort()[0][places]


def k_means(values: Tensor, centroids: Tensor) -> Tensor:
    """Lloyd's algorithm from the given centroids (K,), at most 50 iterations; sorted. A cluster without values keeps its centroid."""
    values, centroids = values.double(), centroids.double()
    for _ in range(ITERATIONS):
        own = nearest(values, centroids)
        counts = torch.zeros_like(centroids).index_add_(0, own, torch.ones_like(values))
        sums = torch.zeros_like(centroids).index_add_(0, own, values)
        moved = torch.where(counts > 0, sums / counts.clamp(min=1), centroids)
        if torch.equal(moved, centroids):
            break
        centroids = moved
    return centroids.float().sort()[0]
