"""Features of the regions, mimicked."""

from torch import Tensor, nn

from worker.distillation.losses.boxes import check_two_stages, mimic_distance
from worker.distillation.losses.features import same_size
from worker.distillation.objective import BuildContext, Objective, ObjectiveNeeds
from worker.distillation.precision import single
from worker.distillation.step import Step


class RoiMimic(Objective):
    """Half the mean squared distance of the pooled features of the student's regions, after a 1x1 convolution, from the teacher's
    features of the same regions.

    Li, Jin, Yan, "Mimicking very efficient network for object detection", CVPR 2017, section 3. Whole maps are not compared: most
    of their pixels are background. The convolution is trained with the student and exists also if the numbers of channels are
    equal. If the networks pool regions to different sizes, the larger map is average-pooled (ours). The weight of 1 is ours.
    """

    paper = "CVPR 2017, Li et al."
    needs = ObjectiveNeeds(batch_global=True, tasks=("detection",))

    def build(self, context: BuildContext) -> None:
        check_two_stages(context, anchors=False)
        super().build(context)
        assert context.teacher is not None
        mine, theirs = (each.parts["roi_features"].shape[2] for each in (context.student, context.teacher))
        self.adaptation = nn.Conv2d(mine, theirs, 1)

    def forward(self, step: Step) -> dict[str, Tensor]:
        valid = step.student.parts["roi_valid"]
        mine, theirs = (each.parts["roi_features"][valid] for each in (step.student, step.need_teacher()))
        adapted, target = same_size(self.adaptation(mine), theirs)
        return {"features": mimic_distance(single(adapted), single(target))}
