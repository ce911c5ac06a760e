"""A detector's own losses."""

from dataclasses import dataclass
from typing import Annotated

from torch import Tensor

from worker.distillation.losses.boxes import proposal_losses, region_losses
from worker.distillation.objective import BuildContext, Objective, ObjectiveNeeds
from worker.distillation.parameters import Range
from worker.distillation.step import Step

ONE_STAGE = "loss/"
"""Prefix of the parts in which detectors of one stage give their own losses."""


class DetectionLoss(Objective):
    """The losses with which a detector learns from boxes alone.

    Of Faster R-CNN (Ren et al., arXiv:1506.01497) the four of torchvision, in every digit: `objectness` and `proposals` of the
    region proposal network, `classes` and `boxes` of the regions. Of RetinaNet, FCOS and SSD torchvision's own: focal loss or
    cross-entropy of the `classes`, a distance of the `boxes`, and FCOS' `centres`. Boxes of crowds are not learnt.
    """

    paper = "arXiv:1506.01497"
    needs = ObjectiveNeeds(fields=("boxes",), teacher=False, batch_global=True, tasks=("detection",))

    @dataclass(frozen=True)
    class Parameters:
        """Weights of the terms."""

        classification: Annotated[
            float,
            Range(ge=0),
            "Weight of the terms that classify, `classes` and `objectness`. Beside `soft_detection` it is mu of Chen et al., whose"
            " weight is then 1 - mu.",
        ] = 1.0
        location: Annotated[float, Range(ge=0), "Weight of the terms that place boxes."] = 1.0
        regions: Annotated[
            float,
            Range(ge=0),
            "Weight of the terms `classes` and `boxes` of detectors of two stages; 0 trains the proposals alone.",
        ] = 1.0

    def build(self, context: BuildContext) -> None:
        super().build(context)
        self.two_stages = "rois" in context.student.parts

    def forward(self, step: Step) -> dict[str, Tensor]:
        p = self.settings
        if not self.two_stages:
            parts = step.student.parts
            names = {"classification": ("classes", p.classification), "bbox_regression": ("boxes", p.location)}
            names["bbox_ctrness"] = ("centres", p.location)
            found = {name: parts[f"{ONE_STAGE}{name}"].mean() for name in names if f"{ONE_STAGE}{name}" in parts}
            return {names[name][0]: value * names[name][1] for name, value in found.items()}
        objectness, proposals = proposal_losses(step.student)
        classes, boxes = region_losses(step.student)
        return {
            "classes": classes * (p.classification * p.regions),
            "boxes": boxes * (p.location * p.regions),
            "objectness": objectness * p.classification,
            "proposals": proposals * p.location,
        }
