"""Losses of synthetic images, from the outputs of a frozen teacher and, for some, of live students. All are minimised.

Chen et al., "Data-Free Learning of Student Networks", ICCV 2019, arXiv:1904.01186, section 3.1; the adversarial term
follows Fang et al., "Data-Free Adversarial Distillation", arXiv:1912.11006. Shapes: B batch, K classes, C channels, H
height, W width.
"""

import math

import torch
import torch.nn.functional as F
from torch import Tensor

SMALLEST = 1e-6


def one_hot(teacher_BK: Tensor, target_B: Tensor | None = None) -> Tensor:
    """Cross-entropy of the teacher's logits with their own largest class (equation 4), or with target classes."""
    return F.cross_entropy(teacher_BK, teacher_BK.argmax(dim=1) if target_B is None else target_B)


def activation(feature: Tensor) -> Tensor:
    """Minus the mean magnitude of the features before the teacher's classifier, of any shape (equation 5)."""
    return -feature.abs().mean()


def information_entropy(teacher_BK: Tensor) -> Tensor:
    """Sum of p log10 p over classes, where p is the batch's mean prediction (equation 6); between -log10 K (balanced)
    and 0 (one class).

    The logarithm is decimal, as in the authors' code, so that their weights can be used. It is taken before averaging
    (log-mean-exp), so that value and gradient stay finite if a class's probability underflows.
    """
    log_p_K = torch.logsumexp(teacher_BK.log_softmax(dim=1), dim=0) - math.log(len(teacher_BK))
    return (log_p_K.exp() * log_p_K).sum() / math.log(10)


def balance(teacher_BK: Tensor) -> Tensor:
    """The entropy of the mean prediction as a share, 0 to 1, of log K; or of log B if there are fewer images (B)
    than classes, since B images can show at most B classes."""
    return (-information_entropy(teacher_BK) / math.log10(max(2, min(teacher_BK.shape)))).clamp_max(1.0)


def decisions(logits_BK: Tensor) -> Tensor:
    """Independent outputs as two-class problems, against and for each: logits (B * K, 2) of the same probabilities."""
    return torch.stack([torch.zeros_like(logits_BK), logits_BK], dim=2).flatten(0, 1)


def information_entropy_of_each(teacher_BK: Tensor) -> Tensor:
    """The information entropy of the binary decision of each of several independent outputs, mean over them; -log10
    2 if each is on in half of the images."""
    logs = torch.stack([F.logsigmoid(teacher_BK), F.logsigmoid(-teacher_BK)])
    log_p_2K = torch.logsumexp(logs, dim=1) - math.log(len(teacher_BK))
    return (log_p_2K.exp() * log_p_2K).sum(dim=0).mean() / math.log(10)


def adversarial(student_BK: Tensor, teacher_BK: Tensor) -> Tensor:
    """Minus the students' disagreement with the teacher: the mean absolute difference of logits over their mean
    magnitude.

    Logits are centred first, since distillation of probabilities does not determine their shift. The published term is
    the bare difference (arXiv:1912.11006, equation 3). A generator can increase that without bound by increasing the
    teacher's logits, at the expense of some classes. The ratio is bounded by the student's error, and one weight suits
    teachers of any scale.
    """
    student, teacher = (logits - logits.mean(dim=1, keepdim=True) for logits in (student_BK, teacher_BK))
    return -(student - teacher).abs().mean() / teacher.abs().mean().clamp_min(SMALLEST)


def disagreement(student_BK: Tensor, teacher_BK: Tensor) -> Tensor:
    """Minus the mean absolute difference of logits (arXiv:1912.11006, equation 3)."""
    return -(student_BK - teacher_BK).abs().mean()


def divergence(student_BK: Tensor, teacher_BK: Tensor) -> Tensor:
    """Minus KL(teacher || student) of the predictions, mean over the batch (Micaelli, Storkey, arXiv:1905.09768)."""
    return -_divergences(student_BK, teacher_BK).mean()


def boundary(student_BK: Tensor, teacher_BK: Tensor) -> Tensor:
    """Minus KL(teacher || student) where the student still predicts the teacher's class, mean over the whole batch.

    Images move to the point where the two predictions are about to differ, and no further (Fang et al.,
    arXiv:2105.08584).
    """
    agrees_B = student_BK.argmax(dim=1) == teacher_BK.argmax(dim=1)
    return -(_divergences(student_BK, teacher_BK) * agrees_B).mean()


def competition(student_BK: Tensor, teacher_BK: Tensor) -> Tensor:
    """1 - JS(teacher, student) of the predictions, mean over the batch (Yin et al., arXiv:1912.08795).

    The Jensen-Shannon divergence is in nats, at most log 2.
    """
    logs = [logits.log_softmax(dim=1) for logits in (student_BK, teacher_BK)]
    log_middle = torch.logsumexp(torch.stack(logs), dim=0) - math.log(2)
    each = [(log_p.exp() * (log_p - log_middle)).sum(dim=1) for log_p in logs]
    return 1 - 0.5 * (each[0] + each[1]).mean()


def total_variation(image_BCHW: Tensor) -> Tensor:
    """Euclidean norms of the differences between neighbouring pixels of the whole batch, summed over the four directions."""
    x = image_BCHW
    differences = (
        x[..., 1:] - x[..., :-1],
        x[..., 1:, :] - x[..., :-1, :],
        x[..., 1:, 1:] - x[..., :-1, :-1],
        x[..., 1:, :-1] - x[..., :-1, 1:],
    )
    return torch.stack([torch.linalg.vector_norm(each) for each in differences]).sum()


def energy(image_BCHW: Tensor) -> Tensor:
    """Euclidean norm of the whole batch."""
    return torch.linalg.vector_norm(image_BCHW)


def _divergences(student_BK: Tensor, teacher_BK: Tensor) -> Tensor:
    """KL(teacher || student) of each row's predictions (B,), in nats."""
    log_p, log_q = teacher_BK.log_softmax(dim=1), student_BK.log_softmax(dim=1)
    return (log_p.exp() * (log_p - log_q)).sum(dim=1)
