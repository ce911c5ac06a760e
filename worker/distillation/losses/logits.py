"""Maths on logits that several objectives share.

Shapes: B batch, K classes.
"""

from typing import Annotated

import torch.nn.functional as F
from torch import Tensor

EPSILON = 1e-7

Standardise = Annotated[bool, "Shift and scale each row of logits to mean 0 and deviation 1 first (arXiv:2403.01427)."]
"""The parameter that asks for `standardise`."""


def softened_kl(student_BK: Tensor, teacher_BK: Tensor, temperature: float) -> Tensor:
    """`T² KL(softmax(teacher / T) || softmax(student / T))`, mean over the batch; arXiv:1503.02531, equation 1 and section 2.1.

    T² keeps the size of the gradient, `T (p_student - p_teacher) / B`, of the order of that of the cross-entropy.
    """
    log_p = F.log_softmax(student_BK / temperature, dim=1)
    q = F.softmax(teacher_BK / temperature, dim=1)
    return F.kl_div(log_p, q, reduction="batchmean") * temperature**2


def binary_kl(student_BK: Tensor, teacher_BK: Tensor) -> Tensor:
    """`KL(sigmoid(teacher) || sigmoid(student))` (B, K) of each class as a decision of its own, for or against."""
    for_it = teacher_BK.sigmoid() * (F.logsigmoid(teacher_BK) - F.logsigmoid(student_BK))
    against = (-teacher_BK).sigmoid() * (F.logsigmoid(-teacher_BK) - F.logsigmoid(-student_BK))
    return for_it + against


def standardise(logits_BK: Tensor) -> Tensor:
    """Each row shifted to mean 0 and scaled to (unbiased) standard deviation 1; arXiv:2403.01427, algorithm 1."""
    return (logits_BK - logits_BK.mean(1, keepdim=True)) / (logits_BK.std(1, keepdim=True) + EPSILON)
