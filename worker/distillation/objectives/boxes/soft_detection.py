"""The teacher's class probabilities for the student's regions, with the background weighted."""

from dataclasses import dataclass
from typing import Annotated

from torch import Tensor

from worker.distillation.losses.boxes import (
    check_two_stages,
    sampled,
    weighted_soft_cross_entropy,
    weighted_soft_objectness,
)
from worker.distillation.objective import BuildContext, Objective, ObjectiveNeeds
from worker.distillation.parameters import Range
from worker.distillation.precision import single
from worker.distillation.step import Step


class SoftDetection(Objective):
    """Cross-entropy with the teacher's probabilities for the regions and anchors that the student draws; the background, which is most
    of them, has its own weight.

    Chen et al., "Learning efficient object detection models with knowledge distillation", NIPS 2017, section 3.2. The total is
    mu times the loss of the labels (`classification` of `detection_loss`) and 1 - mu times this; mu is not in the text that we
    have, and 0.5 is ours. On images without labels only the regions are compared.
    """

    paper = "NIPS 2017, Chen et al."
    needs = ObjectiveNeeds(logits=True, batch_global=True, tasks=("detection",))

    @dataclass(frozen=True)
    class Parameters:
        """The weight of the background, and what is compared."""

        background: Annotated[float, Range(ge=0), "Weight of the background; each class of objects has 1."] = 1.5
        objectness: Annotated[
            bool,
            "Whether the objectness of the sampled anchors is compared too, as in the paper; both networks need the same anchors.",
        ] = True

    def build(self, context: BuildContext) -> None:
        check_two_stages(context, anchors=self.settings.objectness)
        super().build(context)

    def forward(self, step: Step) -> dict[str, Tensor]:
        student, teacher, weight = step.student, step.need_teacher(), self.settings.background
        valid = student.parts["roi_valid"]
        mine, theirs = single(student.logits[valid]), single(teacher.logits[valid])
        terms = {"classes": weighted_soft_cross_entropy(mine, theirs, weight).mean()}
        if self.settings.objectness and "anchor_sample" in student.parts:
            of_student, of_teacher = (single(sampled(each, "objectness", student)) for each in (student, teacher))
            terms["objectness"] = weighted_soft_objectness(of_student, of_teacher, weight).mean()
        return terms
