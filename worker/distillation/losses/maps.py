"""Maths of objectives on maps: means over known pixels, affinities of places, and a critic of maps.

Shapes: B batch, K classes, C channels, H height, W width, P places.
"""

import torch
import torch.nn.functional as F
from torch import Tensor

from worker.distillation.data.fields import IGNORED

LEAST_DEPTH = 1e-3
"""Metres below which a predicted depth counts as this in a logarithm."""


def sized(logits_BKHW: Tensor, size: tuple[int, ...]) -> Tensor:
    """Maps in the size of the ground truth, bilinear where a network's maps are smaller."""
    if tuple(logits_BKHW.shape[2:]) == tuple(size):
        return logits_BKHW
    return F.interpolate(logits_BKHW, size=tuple(size), mode="bilinear", align_corners=False)


def pixel_cross_entropy(logits_BKHW: Tensor, mask_BHW: Tensor, weight_K: Tensor | None = None) -> Tensor:
    """Mean cross-entropy over the pixels whose class is known; 0 if there are none. With weights, the weighted mean."""
    logits = sized(logits_BKHW, tuple(mask_BHW.shape[1:]))
    label = mask_BHW.long()
    each = F.cross_entropy(logits, label, weight=weight_K, ignore_index=IGNORED, reduction="sum")
    known = label[label != IGNORED]
    count = weight_K[known].sum() if weight_K is not None else known.new_tensor(len(known))
    return each / count.clamp(min=1)


def pixel_kl(student_BKHW: Tensor, teacher_BKHW: Tensor, temperature: float) -> Tensor:
    """`T² KL(softmax(teacher / T) || softmax(student / T))` over the classes, mean over all pixels of all samples."""
    student = sized(student_BKHW, tuple(teacher_BKHW.shape[2:]))
    log_p = F.log_softmax(student / temperature, dim=1)
    log_q = F.log_softmax(teacher_BKHW / temperature, dim=1)
    return (log_q.exp() * (log_q - log_p)).sum(1).mean() * temperature**2


def affinity(features_BCHW: Tensor, grid: int) -> Tensor:
    """Cosine similarities (B, P, P) of the P = grid² cells into which the map is max-pooled."""
    pooled = F.adaptive_max_pool2d(features_BCHW, grid).flatten(2)
    unit = pooled / pooled.norm(dim=1, keepdim=True).clamp(min=1e-8).detach()
    return unit.mT @ unit


def known_mean(error_BHW: Tensor, known_BHW: Tensor) -> Tensor:
    """Mean over the known pixels; 0 if there are none."""
    return torch.where(known_BHW, error_BHW, torch.zeros_like(error_BHW)).sum() / known_BHW.sum().clamp(min=1)


def scale_invariant(depth_BHW: Tensor, target_BHW: Tensor, known_BHW: Tensor, balance: float) -> Tensor:
    """`mean(d²) - balance (mean d)²` over an image's known pixels, d the difference of logarithms; mean over images with any.

    Eigen, Puhrsch, Fergus, arXiv:1406.2283, equation 4.
    """
    difference = depth_BHW.clamp(min=LEAST_DEPTH).log() - target_BHW.clamp(min=LEAST_DEPTH).log()
    difference = torch.where(known_BHW, difference, torch.zeros_like(difference)).flatten(1)
    count = known_BHW.flatten(1).sum(1)
    divisor = count.clamp(min=1)
    each = difference.square().sum(1) / divisor - balance * (difference.sum(1) / divisor).square()
    return each.sum() / (count > 0).sum().clamp(min=1)
