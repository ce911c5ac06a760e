"""Decoupled knowledge distillation: separate terms for the target class and for the other classes."""

from dataclasses import dataclass
from typing import Annotated

import torch
import torch.nn.functional as F
from torch import Tensor

from worker.distillation.losses.logits import Standardise, standardise
from worker.distillation.objective import Objective, ObjectiveNeeds
from worker.distillation.parameters import Range
from worker.distillation.precision import fp32, single
from worker.distillation.step import Step


class DecoupledKnowledgeDistillation(Objective):
    """Knowledge distillation split into two terms: the probability of the label, and the distribution over the other
    classes.

    Zhao et al., "Decoupled knowledge distillation", arXiv:2203.08679. The defaults are those that the authors' code
    (megvii-research/mdistiller) uses on CIFAR-100 for a ResNet32x4. For other teachers it uses a beta of 2 or 6, and on
    ImageNet a beta of 0.5 with a temperature of 1. Its warm-up over the first 20 of 240 epochs is a weight that rises
    linearly until 20 / 240. With standardised logits (arXiv:2403.01427) a temperature of 2 is usual. With two classes
    there is only one other class, so the second term is 0.
    """

    paper = "arXiv:2203.08679"
    needs = ObjectiveNeeds(fields=("label",), logits=True, minimum_classes=3)

    @dataclass(frozen=True)
    class Parameters:
        """The temperature, and the weights of the terms."""

        temperature: Annotated[
            float, Range(gt=0), "Temperature: divides the logits of both networks before the softmax."
        ] = 4.0
        alpha: Annotated[
            float, Range(ge=0), "Weight of the divergence of the label against all other classes together."
        ] = 1.0
        beta: Annotated[float, Range(ge=0), "Weight of the divergence among the other classes."] = 8.0
        standardise: Standardise = False

    def forward(self, step: Step) -> dict[str, Tensor]:
        p = self.settings
        with fp32(step.student.logits.device):
            student, teacher = single(step.student.logits), single(step.need_teacher().logits)
            if p.standardise:
                student, teacher = standardise(student), standardise(teacher)
            target, others = decoupled_kl(student / p.temperature, teacher / p.temperature, step.label)
            squared = p.temperature**2
            return {"target": p.alpha * squared * target.mean(), "non_target": p.beta * squared * others.mean()}


def decoupled_kl(student_BK: Tensor, teacher_BK: Tensor, label_B: Tensor) -> tuple[Tensor, Tensor]:
    """KL(teacher || student) of the label against the rest, and among the other classes given that it is one of them;
    both (B,).

    `KL(softmax(teacher) || softmax(student))` is the first plus `1 - p_teacher(label)` times the second. All logarithms
    of probabilities are computed as differences of logits and logsumexps, so that no logarithm of an underflown
    probability occurs.
    """
    is_label_BK = F.one_hot(label_B, student_BK.shape[1]).bool()
    log_p_B2, log_q_B2 = (_label_and_rest(logits, is_label_BK) for logits in (student_BK, teacher_BK))
    target = (log_q_B2.exp() * (log_q_B2 - log_p_B2)).sum(1)
    log_p_BK, log_q_BK = (
        F.log_softmax(logits.masked_fill(is_label_BK, -float("inf")), dim=1) for logits in (student_BK, teacher_BK)
    )
    difference = (log_q_BK - log_p_BK).masked_fill(is_label_BK, 0.0)
    return target, (log_q_BK.exp() * difference).sum(1)


def _label_and_rest(logits_BK: Tensor, is_label_BK: Tensor) -> Tensor:
    """Log-probabilities of the label and of all other classes together, (B, 2)."""
    log_p = F.log_softmax(logits_BK, dim=1)
    label, rest = (log_p.masked_fill(left_out, -float("inf")).logsumexp(1) for left_out in (~is_label_BK, is_label_BK))
    return torch.stack((label, rest), dim=1)
