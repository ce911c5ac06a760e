"""Maths of losses on boxes.

Means are over what was drawn: every sampled anchor or region of the batch counts once, whatever its image. So objectives that use
these functions set `batch_global`.

Shapes: B batch, A anchors, R regions of an image, K classes of objects.
"""

import torch
import torch.nn.functional as F
from torch import Tensor

from worker.distillation.errors import Problem, SpecError
from worker.distillation.objective import BuildContext
from worker.distillation.precision import single
from worker.distillation.step import Outputs

BETA = 1 / 9
"""Where the smooth L1 loss goes over from squares to absolute values, as in torchvision."""
TWO_STAGES = ("rois", "objectness")
"""Parts that only detectors of two stages return."""


def proposal_losses(student: Outputs) -> tuple[Tensor, Tensor]:
    """Of the region proposal network: the binary cross-entropy of the sampled anchors' objectness, and the smooth L1 distance of the
    offsets of those with an object, summed and divided by the number of all sampled.

    Ren et al., arXiv:1506.01497, equation 1, as in torchvision.
    """
    sample = student.parts["anchor_sample"].flatten()
    positive, negative = (torch.where(sample == value)[0] for value in (1, 0))
    both = torch.cat([positive, negative])
    objectness = single(student.parts["objectness"].flatten()[both])
    offsets, targets = (
        single(student.parts[name].flatten(0, 1)[positive]) for name in ("anchor_deltas", "anchor_target")
    )
    truth = (sample[both] == 1).to(objectness.dtype)
    distance = F.smooth_l1_loss(offsets, targets, beta=BETA, reduction="sum")
    return F.binary_cross_entropy_with_logits(objectness, truth), distance / max(len(both), 1)


def region_losses(student: Outputs) -> tuple[Tensor, Tensor]:
    """Of the regions' head: the cross-entropy of the classes, and the smooth L1 distance of the offsets of the true class, summed over
    regions with an object and divided by the number of all."""
    parts = student.parts
    chosen = parts["roi_valid"].flatten()
    logits, label = single(student.logits.flatten(0, 1)[chosen]), parts["roi_label"].flatten()[chosen]
    offsets, targets = of_true_class(student, student)
    distance = F.smooth_l1_loss(offsets, targets, beta=BETA, reduction="sum")
    return F.cross_entropy(logits, label), distance / max(len(label), 1)


def of_true_class(outputs: Outputs, drawn: Outputs) -> tuple[Tensor, Tensor]:
    """The offsets (P, 4) of the true class, and their targets, for the P regions with an object; `drawn` says which these are."""
    label = drawn.parts["roi_label"]
    place = torch.where(label.flatten() > 0)[0]
    offsets = outputs.parts["roi_deltas"].flatten(0, 1)[place, label.flatten()[place]]
    return single(offsets), drawn.parts["roi_target"].flatten(0, 1)[place]


def weighted_soft_cross_entropy(student_NK: Tensor, teacher_NK: Tensor, background: float) -> Tensor:
    """`-sum_c w_c p_t(c) log p_s(c)` (N,), with `w_0 = background` for the background and 1 for the objects.

    Chen et al., "Learning efficient object detection models with knowledge distillation", NIPS 2017, equation 3.
    """
    weight = torch.ones(student_NK.shape[1], device=student_NK.device, dtype=student_NK.dtype)
    weight[0] = background
    return -(weight * teacher_NK.softmax(1) * student_NK.log_softmax(1)).sum(1)


def weighted_soft_objectness(student_N: Tensor, teacher_N: Tensor, background: float) -> Tensor:
    """The same (N,) for logits of "object", of which 0 has the background's probability one half."""
    target = teacher_N.sigmoid()
    return -(target * F.logsigmoid(student_N) + background * (1 - target) * F.logsigmoid(-student_N))


def bounded_distance(student_P4: Tensor, teacher_P4: Tensor, target_P4: Tensor, margin: float) -> Tensor:
    """The student's squared distance from the target (P,) where it, plus the margin, exceeds the teacher's; 0 elsewhere.

    Chen et al., NIPS 2017, equation 4. The teacher only decides where the student is still taught.
    """
    mine = (student_P4 - target_P4).square().sum(1)
    theirs = (teacher_P4 - target_P4).square().sum(1)
    return torch.where(mine + margin > theirs, mine, torch.zeros_like(mine))


def mimic_distance(student: Tensor, teacher: Tensor) -> Tensor:
    """`1 / (2 N) sum_i 1 / m_i |u_i - v_i|²` of the features (N, C, S, S) of N regions, of m_i numbers each; 0 without regions.

    Li et al., "Mimicking very efficient network for object detection", CVPR 2017, equation 4.
    """
    return (student - teacher).square().mean() / 2 if len(student) else student.sum() * 0.0


def check_two_stages(context: BuildContext, anchors: bool) -> None:
    """Check that both networks have regions, and with `anchors` that they have the same anchors.

    Raises:
        SpecError: they do not.
    """
    both = {"student": context.student, "teacher": context.teacher}
    problems = [
        f"needs the regions of a detector of two stages, such as tiny_faster_rcnn, which the {whose} is not"
        for whose, outputs in both.items()
        if outputs is not None and not set(TWO_STAGES) <= outputs.parts.keys()
    ]
    if not problems and anchors and context.teacher is not None:
        mine, theirs = (outputs.parts["objectness"].shape[1] for outputs in (context.student, context.teacher))
        if mine != theirs:
            problems = [f"compares anchors, but the student has {mine} and the teacher {theirs}: give both the same"]
    if problems:
        raise SpecError([Problem("/name", problem) for problem in problems])


def sampled(outputs: Outputs, name: str, drawn: Outputs, positive: bool = False) -> Tensor:
    """The rows of a part for the sampled anchors, or only for those with an object."""
    sample = drawn.parts["anchor_sample"].flatten()
    return outputs.parts[name].flatten(0, 1)[sample == 1 if positive else sample >= 0]
