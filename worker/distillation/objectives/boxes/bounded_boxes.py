"""Boxes that are learnt only where the student is worse than the teacher."""

from dataclasses import dataclass
from typing import Annotated

from torch import Tensor

from worker.distillation.losses.boxes import bounded_distance, check_two_stages, of_true_class, sampled
from worker.distillation.objective import BuildContext, Objective, ObjectiveNeeds
from worker.distillation.parameters import Range
from worker.distillation.precision import single
from worker.distillation.step import Step


class BoundedBoxes(Objective):
    """The squared distance of the student's offsets from the true ones, where it exceeds the teacher's less a margin.

    Chen et al., "Learning efficient object detection models with knowledge distillation", NIPS 2017, section 3.3; the weight nu
    of 0.5 and the margin of 0 are ours. Sums over regions with an object are divided by the number of all regions, as those of
    `detection_loss`. Offsets are in the units of torchvision's coders: for a region, of its width and height times 10 for the
    centre, and logarithms times 5 for the size, so that an error of 10 % in all four is about 2.5 squared.
    """

    paper = "NIPS 2017, Chen et al."
    needs = ObjectiveNeeds(fields=("boxes",), batch_global=True, tasks=("detection",))

    @dataclass(frozen=True)
    class Parameters:
        """The margin, and what is compared."""

        margin: Annotated[
            float,
            Range(ge=0),
            "By how much the student must be better than the teacher to be left alone, in squared units of the coder: 2.5 is an"
            " error of about 10 % of a region in all four offsets.",
        ] = 0.0
        proposals: Annotated[
            bool,
            "Whether the proposals of the sampled anchors are compared too (in units of an anchor's width and height, times 1); both"
            " networks need the same anchors.",
        ] = True

    def build(self, context: BuildContext) -> None:
        check_two_stages(context, anchors=self.settings.proposals)
        super().build(context)

    def forward(self, step: Step) -> dict[str, Tensor]:
        student, teacher, margin = step.student, step.need_teacher(), self.settings.margin
        mine, target = of_true_class(student, student)
        theirs, _ = of_true_class(teacher, student)
        regions = max(int(student.parts["roi_valid"].sum()), 1)
        terms = {"boxes": bounded_distance(single(mine), single(theirs), target, margin).sum() / regions}
        if self.settings.proposals:
            mine, theirs = (single(sampled(each, "anchor_deltas", student, True)) for each in (student, teacher))
            target = sampled(student, "anchor_target", student, positive=True)
            anchors = max(int((student.parts["anchor_sample"] >= 0).sum()), 1)
            terms["proposals"] = bounded_distance(mine, theirs, target, margin).sum() / anchors
        return terms
