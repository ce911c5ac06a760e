"""Losses of a generator whose images a frozen teacher judges. All are to be minimised.

Chen et al., "Data-Free Learning of Student Networks", ICCV 2019, arXiv:1904.01186, section 3.1; the adversarial term follows
Fang et al., "Data-Free Adversarial Distillation", arXiv:1912.11006. Shapes: B batch, K classes.
"""

import math

import torch
import torch.nn.functional as F
from torch import Tensor

SMALLEST = 1e-6


def one_hot(teacher_BK: Tensor) -> Tensor:
    """Cross-entropy of the teacher's logits with their own largest class (equation 4); 0 when the teacher is certain."""
    return F.cross_entropy(teacher_BK, teacher_BK.argmax(dim=1))


def activation(feature: Tensor) -> Tensor:
    """Minus the mean magnitude of the features before the teacher's classifier, of any shape (equation 5)."""
    return -feature.abs().mean()


def information_entropy(teacher_BK: Tensor) -> Tensor:
    """Sum of p log10 p over classes, p the batch's mean prediction (equation 6); between -log10 K (balanced) and 0 (one class).

    The logarithm is the decimal one, as in the authors' code, so that their weights keep their meaning. It is taken
    before averaging (log-mean-exp), so that value and gradient stay finite when a class's probability underflows.
    """
    log_p_K = torch.logsumexp(teacher_BK.log_softmax(dim=1), dim=0) - math.log(len(teacher_BK))
    return (log_p_K.exp() * log_p_K).sum() / math.log(10)


def adversarial(student_BK: Tensor, teacher_BK: Tensor) -> Tensor:
    """Minus the students' disagreement with the teacher: the mean absolute difference of logits over their mean magnitude.

    Logits are centred first, since distillation of probabilities leaves a shift of them open. The published term is the
    bare difference (arXiv:1912.11006, equation 3); a generator can raise that without end by raising the teacher's
    logits, at the expense of some classes. The ratio is bounded by what the student gets wrong, and one weight suits
    teachers of any scale.
    """
    student, teacher = (logits - logits.mean(dim=1, keepdim=True) for logits in (student_BK, teacher_BK))
    return -(student - teacher).abs().mean() / teacher.abs().mean().clamp_min(SMALLEST)
