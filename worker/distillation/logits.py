"""Maths on logits that several objectives share.

Shapes: B batch, K classes.
"""

import torch.nn.functional as F
from torch import Tensor

EPSILON = 1e-7


def softened_kl(student_BK: Tensor, teacher_BK: Tensor, temperature: float) -> Tensor:
    """`T² KL(softmax(teacher / T) || softmax(student / T))`, mean over the batch; arXiv:1503.02531, equation 1 and section 2.1.

    T² keeps the size of the gradient, `T (p_student - p_teacher) / B`, of the order of that of the cross-entropy.
    """
    log_p = F.log_softmax(student_BK / temperature, dim=1)
    q = F.softmax(teacher_BK / temperature, dim=1)
    return F.kl_div(log_p, q, reduction="batchmean") * temperature**2


def standardise(logits_BK: Tensor) -> Tensor:
    """Each row shifted to mean 0 and scaled to (unbiased) standard deviation 1; arXiv:2403.01427, algorithm 1."""
    return (logits_BK - logits_BK.mean(1, keepdim=True)) / (logits_BK.std(1, keepdim=True) + EPSILON)
