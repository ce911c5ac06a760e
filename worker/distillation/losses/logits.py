"""Functions of logits that several objectives share.

Shapes: B batch, K classes.
"""

from typing import Annotated

import torch.nn.functional as F
from torch import Tensor

EPSILON = 1e-7
LEAST_DEVIATION = 1e-2
"""Logits of a smaller standard deviation count as if they had this one. A classifier that begins at zero has none, and would
get gradients of `1 / EPSILON`; published networks are never below it."""

Standardise = Annotated[
    bool,
    "Whether each row of logits is first shifted and scaled to mean 0 and standard deviation 1 (arXiv:2403.01427).",
]
"""The parameter that turns on `standardise`."""


def softened_kl(student_BK: Tensor, teacher_BK: Tensor, temperature: float) -> Tensor:
    """`T² KL(softmax(teacher / T) || softmax(student / T))`, mean over the batch; arXiv:1503.02531, equation 1 and section 2.1.

    The factor T² keeps the gradient, `T (p_student - p_teacher) / B`, at the scale of that of the cross-entropy.
    """
    log_p = F.log_softmax(student_BK / temperature, dim=1)
    q = F.softmax(teacher_BK / temperature, dim=1)
    return F.kl_div(log_p, q, reduction="batchmean") * temperature**2


def binary_kl(student_BK: Tensor, teacher_BK: Tensor) -> Tensor:
    """`KL(sigmoid(teacher) || sigmoid(student))` (B, K): each class as an independent binary decision."""
    positive = teacher_BK.sigmoid() * (F.logsigmoid(teacher_BK) - F.logsigmoid(student_BK))
    negative = (-teacher_BK).sigmoid() * (F.logsigmoid(-teacher_BK) - F.logsigmoid(-student_BK))
    return positive + negative


def standardise(logits_BK: Tensor) -> Tensor:
    """Each row shifted to mean 0 and scaled to (unbiased) standard deviation 1; arXiv:2403.01427, algorithm 1.

    A row whose standard deviation is below `LEAST_DEVIATION` is divided by that.
    """
    deviation_B1 = (logits_BK.std(1, keepdim=True) + EPSILON).clamp_min(LEAST_DEVIATION)
    return (logits_BK - logits_BK.mean(1, keepdim=True)) / deviation_B1
