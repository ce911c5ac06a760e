"""Multi-level logit distillation: predictions and the relations of samples and of classes, at several temperatures."""

from dataclasses import dataclass
from typing import Annotated

import torch
import torch.nn.functional as F
from torch import Tensor

from worker.distillation.losses.logits import Standardise, standardise
from worker.distillation.objective import Objective, ObjectiveNeeds
from worker.distillation.parameters import Items, Range
from worker.distillation.precision import fp32, single
from worker.distillation.step import Step


class MultiLevel(Objective):
    """Divergence of predictions for two views of each image, plus distances between the Gram matrices of samples and of
    classes.

    Jin, Wang, Lin, "Multi-level logit distillation", CVPR 2023, as the paper describes it: in the first view, two kinds
    are left out one by one: samples on which the teacher's confidence is above the batch's median, and classes whose
    sum of the teacher's probabilities is above the median of the classes. The authors' code
    (Jin-Ying/Multi-Level-Logit-Distillation) differs: it multiplies means by the masks, so that nothing is left out; it
    takes the first view's logits for the second view's at two of the temperatures; and it applies the weights to one
    temperature alone. The published results are those of that code. The authors also train both views on the labels,
    which is `cross_entropy` with `second_view`.
    """

    paper = "10.1109/CVPR52729.2023.02325"
    needs = ObjectiveNeeds(fields=("second_view",), logits=True, batch_global=True)
    when = {
        ("standardise", True): {
            "needs": ObjectiveNeeds(fields=("second_view",), logits=True, batch_global=True, minimum_classes=3)
        },
    }

    @dataclass(frozen=True)
    class Parameters:
        """The temperatures, and the weights of the levels."""

        temperatures: Annotated[
            tuple[Annotated[float, Range(gt=0)], ...],
            Items(least=1, most=16),
            "Temperatures. Every level is computed at each of them, and the results are added.",
        ] = (2.0, 3.0, 4.0, 5.0, 6.0)
        instance_weight: Annotated[float, Range(ge=0), "Weight of the divergence of predictions, times T²."] = 1.0
        batch_weight: Annotated[float, Range(ge=0), "Weight of the relations between samples, in the first view."] = 1.0
        class_weight: Annotated[float, Range(ge=0), "Weight of the relations between classes, in the first view."] = 1.0
        masks: Annotated[
            bool, "Leave out of the first view the samples and classes of which the teacher is most confident."
        ] = True
        standardise: Standardise = False

    def forward(self, step: Step) -> dict[str, Tensor]:
        p = self.settings
        with fp32(step.student.logits.device):
            outputs = (step.student, step.need_teacher(), step.need_second(), step.need_second_teacher())
            student, teacher, student_2, teacher_2 = (self._read(each.logits) for each in outputs)
            samples, classes = masks(single(step.need_teacher().logits), p.masks)
            terms = torch.stack(
                [
                    torch.stack(
                        [
                            divergence(student, teacher, temperature, samples)
                            + divergence(student_2, teacher_2, temperature, torch.ones_like(samples)),
                            *gram_distances(student, teacher, temperature, samples, classes),
                        ]
                    )
                    for temperature in p.temperatures
                ]
            ).sum(0)
        weights = {"instance": p.instance_weight, "batch": p.batch_weight, "class": p.class_weight}
        return {name: weight * term for (name, weight), term in zip(weights.items(), terms, strict=True)}

    def _read(self, logits_BK: Tensor) -> Tensor:
        return standardise(single(logits_BK)) if self.settings.standardise else single(logits_BK)


def masks(teacher_BK: Tensor, wanted: bool) -> tuple[Tensor, Tensor]:
    """Masks: 1 for each sample (B,) and each class (K,) that counts, else 0.

    If `wanted`, those count whose confidence is at most the median. A sample's confidence is its largest probability, a
    class's is its sum over the batch.
    """
    p_BK = F.softmax(teacher_BK, dim=1)
    confidences = p_BK.amax(1), p_BK.sum(0)
    if not wanted:
        return torch.ones_like(confidences[0]), torch.ones_like(confidences[1])
    of_samples, of_classes = ((each <= each.quantile(0.5)).to(each) for each in confidences)
    return of_samples, of_classes


def divergence(student_BK: Tensor, teacher_BK: Tensor, temperature: float, samples_B: Tensor) -> Tensor:
    """`T² KL(softmax(teacher / T) || softmax(student / T))`, summed over the samples that count, divided by the
    batch size."""
    log_p = F.log_softmax(student_BK / temperature, dim=1)
    q = F.softmax(teacher_BK / temperature, dim=1)
    return (F.kl_div(log_p, q, reduction="none").sum(1) * samples_B).mean() * temperature**2


def gram_distances(
    student_BK: Tensor, teacher_BK: Tensor, temperature: float, samples_B: Tensor, classes_K: Tensor
) -> tuple[Tensor, Tensor]:
    """`||P_t P_tᵀ - P_s P_sᵀ||² / B` and `||P_tᵀ P_t - P_sᵀ P_s||² / K` for softened predictions P (B, K), summed
    over the columns that count."""
    p, q = (F.softmax(logits / temperature, dim=1) for logits in (student_BK, teacher_BK))
    of_samples, of_classes = q @ q.mT - p @ p.mT, q.mT @ q - p.mT @ p
    batch = (of_samples.square() * samples_B).sum() / len(samples_B)
    return batch, (of_classes.square() * classes_K).sum() / len(classes_K)
